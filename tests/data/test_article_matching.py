import json

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import article_matching, prepared
from attention_lab.data.dataset import SPLITS
from attention_lab.data.labelled import Reading

ARTICLES = {"train": 6, "validation": 4, "test": 5}
PASSAGES = 9


def passage(split, article, number):
  """At least 100 characters: the first words tell split, article and passage, the rest is the article's own."""
  body = " ".join(f"word{split[:2]}{article}x{i}" for i in range(8))
  return f"{split} {article} {number} {body} " + "and so on until it is long enough " * 2


def lines_of(split):
  lines = []
  for article in range(ARTICLES[split]):
    lines += [" ", f" = Title {article} = ", " ", " = = Section = = ", "short line"]
    for number in range(PASSAGES):
      lines += [
        f" {passage(split, article, number)} ",
        f" = = = Part {number} {'of this long heading ' * 6}= = = ",
        " ",
      ]
  return lines


@pytest.fixture
def wikitext(monkeypatch):
  monkeypatch.setattr(prepared, "columns", lambda name, split, directory, names: {"text": lines_of(split)})


def load(workdir="", *, kind="word", length=96, vocabulary=0):
  return article_matching.load(DataConfig(), workdir, Reading(tokenizer=kind, vocabulary=vocabulary, length=length))


def owners(text):
  return tuple(tuple(part.split()[:3]) for part in text.split(" | "))


def test_labels_say_whether_both_passages_have_one_article(wikitext):
  source = load()
  for split in SPLITS:
    pairs = source.splits[split]
    for index in range(len(pairs)):
      first, second = owners(pairs.describe(index))
      assert first != second
      assert first[0] == second[0] == split
      assert (first[1] == second[1]) == pairs.arrays["label"][index]
    assert pairs.arrays["label"].mean() == 0.5


def test_no_passage_of_validation_and_test_stands_in_two_pairs_and_no_pair_of_train_comes_twice(wikitext):
  source = load()
  for split in ("validation", "test"):
    used = [part for i in range(len(source.splits[split])) for part in owners(source.splits[split].describe(i))]
    assert len(set(used)) == len(used)
    assert source.metadata["sizes"][split] == 2 * 2 * ARTICLES[split]  # two pairs of nine passages, and as many apart
  train = source.splits["train"]
  used = [frozenset(owners(train.describe(index))) for index in range(len(train))]
  assert len(set(used)) == len(used) > 4 * 2 * ARTICLES["train"]


def test_headings_and_short_lines_are_left_out(wikitext):
  source = load()
  shown = " ".join(source.splits[s].describe(i) for s in SPLITS for i in range(len(source.splits[s])))
  assert not {"=", "Title", "Section", "Part", "short"} & set(shown.split())
  assert source.metadata["passages"] == {split: count * PASSAGES for split, count in ARTICLES.items()}
  assert source.metadata["articles"] == ARTICLES


def test_a_row_is_class_passage_separator_passage_in_bytes(wikitext):
  source = load(kind="byte", length=600)
  special, split = source.metadata["special"], source.splits["test"]
  batch = split[np.arange(len(split))]
  assert {name: array.dtype for name, array in batch.items()} == dict.fromkeys(
    ("tokens", "types", "length", "label"), np.int32
  )
  for row, length in enumerate(batch["length"]):
    first, second = (list(part.encode()) for part in split.describe(row).split(" | "))
    ids = [special["class"], *(byte + 1 for byte in first), special["separator"], *(byte + 1 for byte in second)]
    assert batch["tokens"][row, :length].tolist() == ids
    assert not batch["tokens"][row, length:].any()
    assert batch["types"][row].tolist() == [0] * (len(first) + 2) + [1] * len(second) + [0] * (600 - length)
  assert source.metadata["truncated"] == dict.fromkeys(SPLITS, 0)
  assert source.metadata["vocabulary"] == 259
  json.dumps(dict(source.metadata))


def test_long_passages_are_cut_to_half_of_the_row_and_counted(wikitext):
  source = load(length=20)
  assert set(source.splits["test"].arrays["length"]) == {20}
  assert source.metadata["truncated"] == source.metadata["sizes"]
  assert all(len(part.split()) == 9 for part in source.splits["test"].describe(0).split(" | "))


def test_equal_passages_are_taken_once():
  text = "x" * 100
  assert article_matching.passages([f"{text}\n\n{text}\n{text}y", f"{text}\n{text}z"], lines=True) == [
    [text, f"{text}y"],
    [f"{text}z"],
  ]
  assert article_matching.passages([f"{text}\n{text}\n \n{text}y"], lines=False) == [[f"{text}\n{text}", f"{text}y"]]


def test_pairs_across_articles_come_from_two_though_one_article_has_nearly_all_passages():
  articles = [["a"] * 40, ["b"] * 5, ["c"] * 4]
  chosen, label = article_matching.pairs(articles, 1)
  owner = np.repeat(np.arange(3), [40, 5, 4])
  np.testing.assert_array_equal(owner[chosen[:, 0]] == owner[chosen[:, 1]], label == 1)
  assert len(np.unique(chosen)) == chosen.size
  assert label.mean() == 0.5
  assert len(label) >= 4


def test_words_that_are_shared_tell_these_articles_apart(wikitext):
  controls = load().controls
  assert controls["largest class"] == 0.5
  assert controls["word overlap"] == 1


def test_the_same_call_makes_the_same_pairs_and_a_workdir_keeps_the_tokenizer(wikitext, tmp_path):
  first = load(tmp_path)
  assert first.digests == load(tmp_path).digests == load().digests
  assert len(set(first.digests.values())) == 3
  assert (tmp_path / "tokenizer.json").exists()
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=byte"):
    load(tmp_path, kind="byte")


def test_a_row_without_room_and_a_split_without_pairs_are_refused(wikitext, monkeypatch):
  with pytest.raises(ValueError, match=r"--config\.data\.length=7"):
    load(length=7)
  monkeypatch.setitem(ARTICLES, "test", 1)
  with pytest.raises(ValueError, match="wikitext2: the test split has no pairs"):
    load()
