import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import text
from attention_lab.data.source import SPLITS
from attention_lab.data.tokenizer import SMALLEST, Tokenizer
from attention_lab.data.topics import python_docs

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
    assert docs.splits[split].arrays["bytes"].sum() == docs.facts["bytes"][split] == size


def test_every_token_of_a_stream_but_the_first_is_a_target_exactly_once():
  for count in (9, 10, 12, 13):
    stream = np.arange(1, count + 1)
    arrays = text.windows(stream, 4, np.arange(20)).arrays
    real = arrays["mask"] == 1
    np.testing.assert_array_equal(arrays["tokens"][:, 1:][real], stream[1:])
    np.testing.assert_array_equal(arrays["tokens"][:, :-1][real], stream[:-1])
    assert arrays["bytes"].sum() == stream[1:].sum()
    assert set(np.unique(arrays["mask"])) <= {0, 1}
    assert len(arrays["mask"]) == -(-(count - 1) // 4)
    assert not arrays["tokens"][:, 1:][~real].any()


def test_windows_have_the_promised_shapes_and_dtypes(docs):
  batch = docs.splits["test"][np.arange(3)]
  found = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
  assert found == {"tokens": ((3, 65), "int32"), "mask": ((3, 64), "float32"), "bytes": ((3,), "int32")}
  assert all(docs.splits[split].arrays["tokens"].max() < docs.facts["vocabulary"] for split in SPLITS)


def test_every_document_begins_after_an_end_of_text(docs):
  for split in SPLITS:
    assert (docs.splits[split].arrays["tokens"][0, 0]) == docs.facts["end_of_text"]
    arrays = docs.splits[split].arrays
    marks = (arrays["tokens"][:, 1:] == docs.facts["end_of_text"]) & (arrays["mask"] == 1)
    assert marks.sum() == docs.facts["documents"][split] - 1


def test_a_tokenizer_gives_back_any_text_and_counts_its_bytes():
  tokenizer = Tokenizer.train([PROSE], SMALLEST + 20)
  for sample in (PROSE, "", "ünseen \x00 bytes 🙂", "<|endoftext|>"):
    ids = tokenizer.encode(sample)
    assert ids.dtype == np.int32
    assert tokenizer.decode(ids) == sample
    assert tokenizer.byte_lengths[ids].sum() == len(sample.encode())
    assert tokenizer.end_of_text not in ids


def test_a_long_text_is_encoded_in_pieces_without_loss(monkeypatch):
  monkeypatch.setattr("attention_lab.data.tokenizer._PIECE", 50)
  tokenizer = Tokenizer.train([PROSE * 3], SMALLEST)
  for sample in (PROSE * 3, "x" * 120, "日" * 120):
    assert tokenizer.decode(tokenizer.encode(sample)) == sample


def test_the_vocabulary_is_learnt_from_the_train_split_alone(docs):
  train = python_docs().splits["train"]
  tokenizer = Tokenizer.train(train.values(), 512)
  stream = text.stream(train, tokenizer)
  np.testing.assert_array_equal(
    text.windows(stream, 64, tokenizer.byte_lengths).arrays["tokens"], docs.splits["train"].arrays["tokens"]
  )


def test_a_second_load_restores_the_tokenizer_and_finds_the_same_data(tmp_path, file):
  data = DataConfig(path=file, length=16)
  first = text.load(data, tmp_path / "run", vocabulary=300)
  saved = (tmp_path / "run" / "tokenizer.json").read_bytes()
  second = text.load(data, tmp_path / "run", vocabulary=300)
  assert first.digests == second.digests == text.load(data, vocabulary=300).digests
  assert (tmp_path / "run" / "tokenizer.json").read_bytes() == saved
  assert [entry.name for entry in (tmp_path / "run").iterdir()] == ["tokenizer.json"]


def test_the_restored_tokenizer_is_the_one_that_is_used(tmp_path, file):
  Tokenizer.train(["zz top " * 50], 260).save(tmp_path / "tokenizer.json")
  data = DataConfig(path=file, length=16)
  restored = text.load(data, tmp_path, vocabulary=260)
  assert restored.digests != text.load(data, vocabulary=260).digests


def test_a_tokenizer_of_another_vocabulary_or_kind_is_refused(tmp_path, file):
  data = DataConfig(path=file, length=16)
  text.load(data, tmp_path, vocabulary=300)
  for vocabulary in (290, 310):
    with pytest.raises(ValueError, match=rf"--config\.data\.vocabulary={vocabulary}, but .* has 300 ids"):
      text.load(data, tmp_path, vocabulary=vocabulary)
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


def test_the_reference_lines_of_the_documentation_order_as_they_must(docs):
  assert list(docs.controls) == ["interpolated bigram", "interpolated 5-gram"]
  assert 1 < docs.controls["interpolated 5-gram"] < docs.controls["interpolated bigram"] < 4
