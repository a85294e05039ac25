import re
from pathlib import Path

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import corpora, prepared, text
from attention_lab.data.corpora import articles, load_corpus, paragraphs, python_docs, split_topics, user_text
from attention_lab.data.dataset import SPLITS

PAGE = [" ", " = Cats = ", " ", " Cats <unk> sleep . ", " ", " = = Food = = ", " ", " Fish . ", " = 5 points = ", " "]
PAGES = [*PAGE, " ", " = Dogs = ", " ", " Dogs run . ", " "]


@pytest.fixture
def datasets(monkeypatch):
  """Prepared datasets by name: split -> texts, under the feature `text`."""
  made = {}

  def columns(name, split, directory, names, log=None):
    assert directory == "folder"
    return dict.fromkeys(names, made[name][split])

  def check(name, directory, others=()):
    if name not in made:
      raise ValueError(f"{name} is not prepared; others: {others}")

  monkeypatch.setattr(prepared, "columns", columns)
  monkeypatch.setattr(prepared, "check", check)
  monkeypatch.setattr(prepared, "splits", lambda name, directory: {s: len(x) for s, x in made[name].items()})
  monkeypatch.setattr(prepared, "only", lambda name, directory, kind: kind)
  return made


def test_an_article_runs_from_its_title_between_empty_lines_to_the_next():
  result = articles(PAGES)
  assert [part.split("\n")[1] for part in result] == [" = Cats = ", " "]
  assert "".join(result) == "".join(f"{line}\n" for line in PAGES)
  assert " = Dogs = " in result[1]
  assert articles(PAGE) == ["".join(f"{line}\n" for line in PAGE)]


def test_wikitext_is_one_stream_of_words_and_line_ends_or_its_articles(datasets):
  datasets["wikitext2"] = dict.fromkeys(SPLITS, PAGES)
  data = DataConfig(name="wikitext2", dir="folder", length=4)
  whole, packed = (text.load(data, vocabulary=0, tokenizer="word", packing=packing) for packing in (False, True))
  counted = sum(len(line.split()) + 1 for line in PAGES)
  for split in SPLITS:
    assert whole.splits[split].arrays["words"].sum() == packed.splits[split].arrays["words"].sum() == counted
    assert whole.metadata["tokens"][split] == counted + 1
    assert packed.metadata["documents"][split] == 2
    assert packed.metadata["bytes"][split] == whole.metadata["bytes"][split] == sum(len(line) + 1 for line in PAGES)
  kinds = {word for line in PAGES for word in line.split()} | {"end of line"}
  assert whole.metadata["vocabulary"] == len(kinds)
  assert not whole.metadata["lossless"]


def test_words_of_wikitext_do_not_depend_on_the_tokenizer(datasets):
  datasets["wikitext2"] = dict.fromkeys(SPLITS, PAGES)
  data = DataConfig(name="wikitext2", dir="folder", length=4)
  result = [
    text.load(data, vocabulary=300, tokenizer=kind).metadata["words"] for kind in ("bpe", "byte", "char", "word")
  ]
  assert result == result[:1] * 4


def test_a_dataset_without_validation_holds_a_tenth_of_train_out_with_equal_texts_together(datasets):
  texts = [f"text number {i // 2} of many" for i in range(200)]
  datasets["reviews"] = {"train": texts, "test": ["one", "two", " "], "unsupervised": ["x"]}
  result = load_corpus(DataConfig(name="reviews", dir="folder"))
  contents = {split: list(documents.values()) for split, documents in result.splits.items()}
  assert contents["test"] == ["one", "two"]
  assert sorted(contents["train"] + contents["validation"]) == sorted(texts)
  assert not set(contents["train"]) & set(contents["validation"])
  assert len(contents["validation"]) == pytest.approx(20, abs=2)
  assert "validation by content" in result.split


def test_published_splits_stay_as_they_are_and_one_of_train_alone_is_cut(datasets):
  datasets["plays"] = {split: [f"{split} text"] for split in SPLITS}
  assert load_corpus(DataConfig(name="plays", dir="folder")).splits == {
    split: {f"{split} 0": f"{split} text"} for split in SPLITS
  }
  datasets["letters"] = {"train": [f"letter {i:03}" for i in range(100)]}
  sizes = {split: len(result) for split, result in load_corpus(DataConfig(name="letters", dir="folder")).splits.items()}
  assert sizes == {"train": 80, "validation": 10, "test": 10}


def test_a_dataset_that_cannot_serve_is_refused(datasets):
  datasets["reviews"] = {"test": ["one"]}
  with pytest.raises(ValueError, match=r"--config\.data\.name=reviews has no split train; it has test"):
    load_corpus(DataConfig(name="reviews", dir="folder"))
  with pytest.raises(ValueError, match=r"wikitxt is not prepared; others: \('python_docs', 'wikitext2'"):
    load_corpus(DataConfig(name="wikitxt", dir="folder"))
  with pytest.raises(ValueError, match=r"are two datasets"):
    load_corpus(DataConfig(name="wikitext2", path="here"))


def test_the_default_is_the_text_that_needs_no_download():
  assert corpora.TEXTS[0] == load_corpus(DataConfig()).name == load_corpus(DataConfig(name="python_docs")).name
  assert np.all([name in corpora.TEXTS for name in ("wikitext2", "tiny_shakespeare")])


def write(folder, **texts):
  for name, content in texts.items():
    file = folder / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
  return str(folder)


def test_one_file_is_cut_at_line_ends_near_80_and_90_percent_and_nothing_is_lost(tmp_path):
  text = "".join(f"línea {i} of a plain text file\n" for i in range(1000))
  file = tmp_path / "book.md"
  file.write_text(text, encoding="utf-8")
  corpus = user_text(str(file))
  parts = [corpus.splits[split]["book.md"] for split in ("train", "validation", "test")]
  assert (corpus.name, corpus.split) == ("book.md", "contiguous")
  assert "".join(parts) == text
  assert all(part.endswith("\n") for part in parts)
  shares = [len(part.encode()) / len(text.encode()) for part in parts]
  assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.003)


@pytest.mark.parametrize("text", ["word " * 4000, "é" * 10_000, "日本" * 5000])
def test_a_text_without_lines_is_cut_between_words_or_characters(tmp_path, text):
  corpus = user_text(write(tmp_path, only=text))
  parts = [corpus.splits[split]["only.txt"] for split in ("train", "validation", "test")]
  assert "".join(parts) == text
  assert [len(part) / len(text) for part in parts] == pytest.approx([0.8, 0.1, 0.1], abs=0.003)


def test_few_files_are_read_recursively_in_order_and_cut_as_one(tmp_path):
  path = write(tmp_path, **{"b/deep/two": "two\n" * 500, "a": "one\n" * 500})
  (tmp_path / "notes.md").write_text("not a text file")
  (tmp_path / "empty.txt").write_text("")
  splits = user_text(path).splits
  assert list(splits["train"]) == ["a.txt", str(Path("b/deep/two.txt"))]
  assert splits["train"]["a.txt"] == "one\n" * 500
  assert list(splits["test"]) == [str(Path("b/deep/two.txt"))]


def test_hidden_files_byte_order_marks_and_windows_line_ends_are_no_text(tmp_path):
  text = "".join(f"line {n}\n" for n in range(100))
  (tmp_path / "plain").mkdir()
  (tmp_path / "plain" / "a.txt").write_bytes(text.encode())
  other = tmp_path / "other"
  (other / ".ipynb_checkpoints").mkdir(parents=True)
  (other / "a.txt").write_bytes(text.replace("\n", "\r\n").encode("utf-8-sig"))
  for name in ("._a.txt", ".ipynb_checkpoints/a-checkpoint.txt"):
    (other / name).write_bytes(b"\xff")
  splits = [user_text(str(tmp_path / name)).splits for name in ("plain", "other")]
  assert splits[0] == splits[1]


def test_ten_files_or_more_are_split_by_document_and_equal_ones_stay_together(tmp_path):
  texts = {f"doc{i:02}": f"text number {i // 2:02}\n" * 20 for i in range(60)}
  corpus = user_text(write(tmp_path, **texts))
  assert corpus.split == "by document"
  names = {split: set(result) for split, result in corpus.splits.items()}
  assert {split: len(result) for split, result in names.items()} == {"train": 48, "validation": 6, "test": 6}
  assert set.union(*names.values()) == {f"{name}.txt" for name in texts}
  contents = {split: set(result.values()) for split, result in corpus.splits.items()}
  assert not contents["train"] & (contents["test"] | contents["validation"])


def test_ten_files_that_leave_a_split_empty_are_cut_as_one(tmp_path):
  corpus = user_text(write(tmp_path, **{f"doc{i}": f"text number {i}\n" * (20 + 900 * (i > 0)) for i in range(10)}))
  assert corpus.split == "contiguous"


def test_a_missing_path_is_refused_by_name(tmp_path):
  with pytest.raises(ValueError, match=r"--config\.data\.path=.*nowhere cannot be read .*No such file"):
    user_text(str(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match=r"--config\.data\.path=~nobody-by-this-name/x cannot be read"):
    user_text("~nobody-by-this-name/x")


def test_invalid_utf8_is_refused_with_file_and_byte(tmp_path):
  path = write(tmp_path, good="fine", bad="héllo".encode() + b"\xff\xfe")
  with pytest.raises(ValueError, match=r"--config\.data\.path: .*bad\.txt is not UTF-8 at byte 6"):
    user_text(path)


def test_utf16_is_refused_by_its_name_with_the_command_that_converts_it(tmp_path):
  (tmp_path / "a.txt").write_text("text", encoding="utf-16")
  with pytest.raises(ValueError, match=r"a\.txt is UTF-16, not UTF-8 text; convert it: iconv"):
    user_text(str(tmp_path))


@pytest.mark.parametrize("texts", [{}, {"a": "", "b": " \n\t\n"}])
def test_an_empty_corpus_is_refused(tmp_path, texts):
  with pytest.raises(ValueError, match=r"--config\.data\.path=.* holds no text"):
    user_text(write(tmp_path, **texts))


def test_every_refusal_is_one_line(tmp_path):
  for path in (tmp_path / "nowhere", tmp_path):
    with pytest.raises(ValueError, match="--config") as caught:
      user_text(str(path))
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def corpus():
  return python_docs()


def test_no_long_paragraph_of_the_documentation_is_in_two_splits(corpus):
  seen = {split: set().union(*map(paragraphs, texts.values())) for split, texts in corpus.splits.items()}
  assert all(len(result) > 20 for result in seen.values())
  assert not seen["train"] & seen["test"]
  assert not seen["train"] & seen["validation"]
  assert not seen["validation"] & seen["test"]


def test_held_out_text_shares_hardly_any_eight_words_in_a_row_with_training_text(corpus):
  def shingles(split):
    counted = [text.split() for text in corpus.splits[split].values()]
    return {tuple(text[i : i + 8]) for text in counted for i in range(len(text) - 7)}

  train = shingles("train")
  for split in ("validation", "test"):
    held_out = shingles(split)
    assert len(held_out & train) < 0.01 * len(held_out)


def test_each_held_out_split_is_about_a_tenth_of_the_bytes_and_of_several_topics(corpus):
  sizes = {split: [len(text.encode()) for text in texts.values()] for split, texts in corpus.splits.items()}
  total = sum(map(sum, sizes.values()))
  for split in ("validation", "test"):
    assert 0.08 <= sum(sizes[split]) / total <= 0.1
    assert max(sizes[split]) <= 0.4 * sum(sizes[split])


def test_every_topic_is_kept_whole_or_contained_in_what_was_kept(corpus):
  from pydoc_data.topics import topics

  remaining = {name: text for texts in corpus.splits.values() for name, text in texts.items()}
  assert sorted([*remaining, *corpus.dropped]) == sorted(topics)
  everything = set().union(*map(paragraphs, remaining.values()))
  assert all(remaining[name] == topics[name] for name in remaining)
  assert all(paragraphs(topics[name]) <= everything for name in corpus.dropped)


def test_a_section_of_another_topic_is_dropped_however_it_is_wrapped_and_indented():
  section = "a paragraph that is long enough to be told from a heading, about nothing at all, and then more of it"
  wrapped = re.sub(r"(.{30}\S*) ", r"\1\n    ", section)
  others = {f"topic {i}": f"another text of its own, number {i}, {'word ' * 20}{i}" for i in range(30)}
  corpus = split_topics(
    others | {"whole": f"Heading\n\n{section}\n\n{'something else ' * 9}", "part": f"Part\n\n  {wrapped}\n"}
  )
  assert corpus.dropped == ("part",)


def test_topics_that_share_a_paragraph_stay_in_one_split():
  shared = "a stock paragraph of more than eighty characters that two otherwise different texts have in common"
  texts = {f"topic {i:02}": f"{shared} {i // 2}\n\n{'its own words ' * 10}{i}" for i in range(60)}
  splits = split_topics(texts).splits
  assert all(splits[split] for split in ("train", "validation", "test"))
  for names in splits.values():
    assert all(f"topic {int(name[6:]) ^ 1:02}" in names for name in names)
