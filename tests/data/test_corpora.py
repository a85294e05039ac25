import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import corpora, prepared, text
from attention_lab.data.corpora import articles, corpus
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
  found = articles(PAGES)
  assert [part.split("\n")[1] for part in found] == [" = Cats = ", " "]
  assert "".join(found) == "".join(f"{line}\n" for line in PAGES)
  assert " = Dogs = " in found[1]
  assert articles(PAGE) == ["".join(f"{line}\n" for line in PAGE)]


def test_wikitext_is_one_stream_of_words_and_line_ends_or_its_articles(datasets):
  datasets["wikitext2"] = dict.fromkeys(SPLITS, PAGES)
  data = DataConfig(name="wikitext2", dir="folder", length=4)
  whole, packed = (text.load(data, vocabulary=0, tokenizer="word", packing=packing) for packing in (False, True))
  words = sum(len(line.split()) + 1 for line in PAGES)
  for split in SPLITS:
    assert whole.splits[split].arrays["words"].sum() == packed.splits[split].arrays["words"].sum() == words
    assert whole.metadata["tokens"][split] == words + 1
    assert packed.metadata["documents"][split] == 2
    assert packed.metadata["bytes"][split] == whole.metadata["bytes"][split] == sum(len(line) + 1 for line in PAGES)
  kinds = {word for line in PAGES for word in line.split()} | {"end of line"}
  assert whole.metadata["vocabulary"] == len(kinds)
  assert not whole.metadata["lossless"]


def test_words_of_wikitext_do_not_depend_on_the_tokenizer(datasets):
  datasets["wikitext2"] = dict.fromkeys(SPLITS, PAGES)
  data = DataConfig(name="wikitext2", dir="folder", length=4)
  found = [
    text.load(data, vocabulary=300, tokenizer=kind).metadata["words"] for kind in ("bpe", "byte", "char", "word")
  ]
  assert found == found[:1] * 4


def test_a_dataset_without_validation_holds_a_tenth_of_train_out_with_equal_texts_together(datasets):
  texts = [f"text number {i // 2} of many" for i in range(200)]
  datasets["reviews"] = {"train": texts, "test": ["one", "two", " "], "unsupervised": ["x"]}
  found = corpus(DataConfig(name="reviews", dir="folder"))
  contents = {split: list(documents.values()) for split, documents in found.splits.items()}
  assert contents["test"] == ["one", "two"]
  assert sorted(contents["train"] + contents["validation"]) == sorted(texts)
  assert not set(contents["train"]) & set(contents["validation"])
  assert len(contents["validation"]) == pytest.approx(20, abs=2)
  assert "validation by content" in found.split


def test_published_splits_stay_as_they_are_and_one_of_train_alone_is_cut(datasets):
  datasets["plays"] = {split: [f"{split} text"] for split in SPLITS}
  assert corpus(DataConfig(name="plays", dir="folder")).splits == {
    split: {f"{split} 0": f"{split} text"} for split in SPLITS
  }
  datasets["letters"] = {"train": [f"letter {i:03}" for i in range(100)]}
  sizes = {split: len(found) for split, found in corpus(DataConfig(name="letters", dir="folder")).splits.items()}
  assert sizes == {"train": 80, "validation": 10, "test": 10}


def test_a_dataset_that_cannot_serve_is_refused(datasets):
  datasets["reviews"] = {"test": ["one"]}
  with pytest.raises(ValueError, match=r"--config\.data\.name=reviews has no split train; it has test"):
    corpus(DataConfig(name="reviews", dir="folder"))
  with pytest.raises(ValueError, match=r"wikitxt is not prepared; others: \('python_docs', 'wikitext2'"):
    corpus(DataConfig(name="wikitxt", dir="folder"))
  with pytest.raises(ValueError, match=r"are two datasets"):
    corpus(DataConfig(name="wikitext2", path="here"))


def test_the_default_is_the_text_that_needs_no_download():
  assert corpora.TEXTS[0] == corpus(DataConfig()).name == corpus(DataConfig(name="python_docs")).name
  assert np.all([name in corpora.TEXTS for name in ("wikitext2", "tiny_shakespeare")])
