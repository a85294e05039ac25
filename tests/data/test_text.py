import re

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import text
from attention_lab.data.corpora import python_docs, user_text
from attention_lab.data.dataset import SPLITS, digest
from attention_lab.data.tokenizer import train

PROSE = "The quick brown fox, naïve and 日本, jumps over <|endoftext|> the lazy dog.\r\n\tAnd again\u00a0…  twice.\n"


@pytest.fixture(scope="module")
def docs():
  return text.load(DataConfig(length=64))


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "prose.txt"
  path.write_bytes((PROSE * 200).encode())
  return str(path)


def test_the_bytes_of_all_examples_of_a_split_are_the_size_of_its_text(docs):
  corpus = python_docs()
  for split in SPLITS:
    size = sum(len(document.encode()) for document in corpus.splits[split].values())
    assert docs.splits[split].arrays["bytes"].sum() == docs.metadata["bytes"][split] == size


def test_every_token_of_a_stream_but_the_first_is_a_target_exactly_once():
  for count in (9, 10, 12, 13):
    stream = np.arange(1, count + 1)
    arrays = text.windows(text.Stream(stream, stream, 2 * stream, np.zeros(1, int)), 4).arrays
    real = arrays["mask"] == 1
    np.testing.assert_array_equal(arrays["tokens"][:, 1:][real], stream[1:])
    np.testing.assert_array_equal(arrays["tokens"][:, :-1][real], stream[:-1])
    assert arrays["bytes"].sum() == stream[1:].sum() == arrays["words"].sum() / 2
    assert set(np.unique(arrays["mask"])) <= {0, 1}
    assert len(arrays["mask"]) == -(-(count - 1) // 4)
    assert not arrays["tokens"][:, 1:][~real].any()


def test_windows_have_the_promised_shapes_and_dtypes(docs):
  batch = docs.splits["test"][np.arange(3)]
  forms = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
  counts = dict.fromkeys(("bytes", "words"), ((3,), "int32"))
  assert forms == {"tokens": ((3, 65), "int32"), "mask": ((3, 64), "float32"), **counts}
  assert all(docs.splits[split].arrays["tokens"].max() < docs.metadata["vocabulary"] for split in SPLITS)


def test_every_document_begins_after_an_end_of_text(docs):
  for split in SPLITS:
    assert (docs.splits[split].arrays["tokens"][0, 0]) == docs.metadata["end_of_text"]
    arrays = docs.splits[split].arrays
    marks = (arrays["tokens"][:, 1:] == docs.metadata["end_of_text"]) & (arrays["mask"] == 1)
    assert marks.sum() == docs.metadata["documents"][split] - 1


def test_the_vocabulary_is_learnt_from_the_train_split_alone(docs):
  documents = python_docs().splits["train"]
  stream = text.stream(documents, train("bpe", documents.values(), 512))
  np.testing.assert_array_equal(text.windows(stream, 64).arrays["tokens"], docs.splits["train"].arrays["tokens"])


def test_a_second_load_restores_the_tokenizer_and_finds_the_same_data(tmp_path, file):
  data = DataConfig(path=file, length=16)
  first = text.load(data, tmp_path / "run", vocabulary=300)
  saved = (tmp_path / "run" / "tokenizer.json").read_bytes()
  second = text.load(data, tmp_path / "run", vocabulary=300)
  assert first.digests == second.digests == text.load(data, vocabulary=300).digests
  assert (tmp_path / "run" / "tokenizer.json").read_bytes() == saved
  assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["tokenizer.json"]


def test_the_restored_tokenizer_is_the_one_that_is_used(tmp_path, file):
  train("bpe", ["zz top " * 50], 260).save(tmp_path / "tokenizer.json")
  data = DataConfig(path=file, length=16)
  restored = text.load(data, tmp_path, vocabulary=260)
  assert restored.digests != text.load(data, vocabulary=260).digests


def test_a_tokenizer_of_another_vocabulary_or_kind_is_refused(tmp_path, file):
  data = DataConfig(path=file, length=16)
  text.load(data, tmp_path, vocabulary=300)
  for vocabulary in (290, 310):
    with pytest.raises(ValueError, match=rf"--config\.data\.vocabulary={vocabulary}, but .* has 300 ids"):
      text.load(data, tmp_path, vocabulary=vocabulary)
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=byte, but .*tokenizer\.json .* of kind bpe"):
    text.load(data, tmp_path, vocabulary=300, tokenizer="byte")
  (tmp_path / "tokenizer.json").write_text("{}")
  with pytest.raises(ValueError, match=r"tokenizer\.json is not a tokenizer"):
    text.load(data, tmp_path, vocabulary=300)


def test_bad_sizes_are_refused_by_flag_and_write_nothing(tmp_path, file):
  with pytest.raises(ValueError, match=r"--config\.data\.length=0"):
    text.load(DataConfig(path=file, length=0), tmp_path / "run")
  with pytest.raises(ValueError, match=r"--config\.data\.vocabulary=256"):
    text.load(DataConfig(path=file), tmp_path / "run", vocabulary=256)
  with pytest.raises(ValueError, match=r"--config\.data\.path=.*validation split has .*--config\.data\.length=5000"):
    text.load(DataConfig(path=file, length=5000), tmp_path / "run", vocabulary=300)
  assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("kind", ["bpe", "byte", "char", "word", "wordpiece"])
@pytest.mark.parametrize("packing", [False, True])
def test_bytes_and_words_of_a_split_are_those_of_its_text_whatever_the_tokenizer(tmp_path, kind, packing):
  for number in range(12):
    (tmp_path / f"{number:02}.txt").write_text(f"{PROSE * (1 + number % 3)} and {number} end ", encoding="utf-8")
  data = DataConfig(path=str(tmp_path), length=16)
  dataset = text.load(data, vocabulary=300, tokenizer=kind, packing=packing)
  for split, documents in user_text(str(tmp_path)).splits.items():
    arrays = dataset.splits[split].arrays
    assert arrays["bytes"].sum() == dataset.metadata["bytes"][split] == sum(len(t.encode()) for t in documents.values())
    assert arrays["words"].sum() == dataset.metadata["words"][split] == sum(len(t.split()) for t in documents.values())
  if kind != "char":
    assert dataset.metadata["lossless"] == (kind in ("bpe", "byte"))


def test_characters_are_lossless_until_one_is_unknown(file):
  data = DataConfig(path=file, length=16)
  whole, part = (text.load(data, vocabulary=size, tokenizer="char").metadata for size in (0, 20))
  assert (whole["lossless"], part["lossless"]) == (True, False)
  assert "lossy" not in whole
  assert part["lossy"].startswith("--config.data.tokenizer=char loses ")


def test_what_a_word_tokenizer_of_four_ids_loses_is_told_in_bytes_and_tokens(tmp_path):
  for number in range(12):
    (tmp_path / f"{number:02}.txt").write_text("the fox and the dog and a naïve cat " * (3 + number))
  metadata = text.load(DataConfig(path=str(tmp_path), length=16), vocabulary=4, tokenizer="word").metadata
  texts = list(user_text(str(tmp_path)).splits["test"].values())
  corpus = [word for t in texts for word in t.split()]
  unknown = [word for word in corpus if word not in ("the", "and")]
  lost, size = sum(len(f" {word}".encode()) for word in unknown), sum(len(t.encode()) for t in texts)
  tokens = f"{len(unknown)} unknown of {len(corpus) + len(texts)} tokens"
  match = re.search(r"loses (\d+) of (\d+) bytes of test, in (.*), and white space: what is lost", metadata["lossy"])
  assert (int(match[2]), match[3]) == (size, tokens)
  assert lost <= int(match[1]) <= lost + len(texts)  # the white space at the end of a text is its last word's


@pytest.mark.parametrize("length", [4, 16, 200])
def test_the_end_of_every_packed_document_is_a_target_once(tmp_path, length):
  for number in range(25):
    (tmp_path / f"{number:02}.txt").write_text("ab " * (5 + number))
  corpus = user_text(str(tmp_path)).splits["train"]
  tokenizer = train("byte", (), 0)
  arrays = text.packed(text.stream(corpus, tokenizer), length).arrays
  inside = (arrays["segments"][:, 1:] == arrays["segments"][:, :-1]) & (arrays["segments"][:, 1:] > 0)
  targets = arrays["tokens"][:, 1:][inside]
  assert (targets == tokenizer.end_of_text).sum() == len(corpus) > 15
  assert len(targets) == sum(len(document.encode()) + 1 for document in corpus.values())


def test_words_are_counted_in_the_window_in_which_they_end():
  tokenizer = train("byte", (), 0)
  stream = text.stream({"a": "ab c\n\nd"}, tokenizer)
  np.testing.assert_array_equal(stream.word_counts, [0, 0, 1, 0, 1, 0, 0, 1])
  np.testing.assert_array_equal(text.windows(stream, 3).arrays["words"], [1, 1, 1])
  np.testing.assert_array_equal(
    text.stream({"a": "ab c\n\nd"}, tokenizer, lines=True).word_counts, [0, 0, 1, 0, 1, 1, 1, 1]
  )


def test_what_only_a_metric_divides_by_is_not_in_the_digest(docs):
  arrays = docs.splits["test"].arrays
  assert docs.digests["test"] == digest({name: arrays[name] for name in ("tokens", "mask", "bytes")})


def test_every_token_of_packed_documents_but_their_first_is_one_target_within_its_segment():
  documents = {str(size): "x" * size for size in (3, 30, 5, 1, 8)}
  arrays = text.packed(text.stream(documents, train("byte", (), 0)), 9).arrays
  assert arrays["tokens"].shape == arrays["segments"].shape == (len(arrays["tokens"]), 10)
  inside = (arrays["segments"][:, 1:] == arrays["segments"][:, :-1]) & (arrays["segments"][:, 1:] > 0)
  targets = arrays["tokens"][:, 1:][inside]
  assert len(targets) == arrays["bytes"].sum() + 5 == 47 + 5
  assert np.unique(targets, return_counts=True)[1].tolist() == [5, 47]  # ends of texts, and letters
  assert not arrays["tokens"][arrays["segments"] == 0].any()


def test_the_reference_lines_of_the_documentation_order_as_they_must(docs):
  assert list(docs.controls) == ["interpolated bigram", "interpolated 5-gram"]
  assert 1 < docs.controls["interpolated 5-gram"] < docs.controls["interpolated bigram"] < 4


def test_what_is_given_in_a_prefix_is_no_target_and_counts_no_bytes():
  stream = text.Stream(np.arange(20, dtype=np.int32), np.full(20, 2), np.ones(20, np.int32), np.zeros(1, np.int32))
  plain, prefixed = (text.windows(stream, 8, prefix=prefix).arrays for prefix in (0, 3))
  np.testing.assert_array_equal(prefixed["tokens"], plain["tokens"])
  np.testing.assert_array_equal(prefixed["mask"][0], [0, 0, 1, 1, 1, 1, 1, 1])
  assert plain["bytes"].tolist() == [16, 16, 6]
  assert prefixed["bytes"].tolist() == [12, 12, 2]
  assert prefixed["words"].tolist() == [6, 6, 1]


@pytest.mark.parametrize("prefix, packing", [(8, False), (-1, False), (2, True)])
def test_a_prefix_that_leaves_no_target_is_refused(prefix, packing):
  with pytest.raises(ValueError, match=f"--config.data.prefix={prefix} leaves no target"):
    text.load(DataConfig(length=8), prefix=prefix, packing=packing)
