import json

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import labelled, prepared
from attention_lab.data.dataset import SPLITS
from attention_lab.data.labelled import Reading
from attention_lab.data.tokenizer import Tokenizer, train

WORDS = ("good", "fine", "bad", "poor", "film", "plot", "the", "a")
READING = Reading(tokenizer="word", vocabulary=0, length=6)


def sentences(count, seed=0):
  """Different sentences that say their label."""
  draw = np.random.default_rng(seed)
  labels = draw.integers(0, 2, count)
  texts = [f"{WORDS[2 * (1 - y) + draw.integers(2)]} {WORDS[4 + draw.integers(4)]} n{i}" for i, y in enumerate(labels)]
  return texts, labels.astype(np.int32)


@pytest.fixture
def datasets(monkeypatch):
  """Prepared datasets by name: split -> (texts, labels), under the features `sentence` and `label`."""
  made = {}

  def columns(name, split, directory, names, log=None):
    return {f: made[name][split][f == "label"] for f in names}

  def check(name, directory, others=()):
    if name not in made:
      raise ValueError(f"{name} is not prepared")

  monkeypatch.setattr(prepared, "columns", columns)
  monkeypatch.setattr(prepared, "check", check)
  monkeypatch.setattr(prepared, "splits", lambda name, directory: {s: len(x[0]) for s, x in made[name].items()})
  monkeypatch.setattr(prepared, "features", lambda name, directory: {"sentence": "text", "label": "label"})
  monkeypatch.setattr(prepared, "only", lambda name, directory, kind: {"text": "sentence"}.get(kind, kind))
  monkeypatch.setattr(prepared, "class_names", lambda name, directory, feature: ["negative", "positive"])
  return made


@pytest.fixture
def sst2(datasets):
  texts, _ = sentences(20, seed=9)
  datasets["glue/sst2"] = {
    "train": sentences(200),
    "validation": sentences(40, seed=1),
    "test": (texts, np.full(20, -1, np.int32)),
  }
  return DataConfig(name="sst2")


@pytest.fixture
def file(tmp_path):
  path = tmp_path / "rows.jsonl"
  texts, labels = sentences(100)
  rows = ({"text": text, "label": ["no", "yes"][label]} for text, label in zip(texts, labels, strict=True))
  path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
  return DataConfig(path=str(path))


def test_batches_have_the_promised_arrays(sst2):
  dataset = labelled.load(sst2, "", READING)
  batch = dataset.splits["test"][np.arange(3)]
  shapes = {name: (array.shape, array.dtype.name) for name, array in batch.items()}
  assert shapes == {"tokens": ((3, 6), "int32"), "length": ((3,), "int32"), "label": ((3,), "int32")}
  for split in SPLITS:
    arrays = dataset.splits[split].arrays
    assert (arrays["tokens"][:, 0] == dataset.metadata["special"]["class"]).all()
    assert arrays["length"].min() >= 1
    real = np.arange(6) < arrays["length"][:, None]
    assert (arrays["tokens"][real] != 0).all()
    assert not arrays["tokens"][~real].any()


def test_where_test_has_no_labels_validation_is_test_and_a_tenth_of_train_validation(sst2):
  dataset = labelled.load(sst2, "", READING)
  assert dataset.name == "glue/sst2"
  assert dataset.metadata["sizes"] == {"train": 180, "validation": 20, "test": 40}
  assert dataset.splits["test"].texts == sentences(40, seed=1)[0]
  assert "has no labels" in dataset.metadata["origin"]["test"]
  assert not set(dataset.splits["train"].texts) & set(dataset.splits["validation"].texts)
  assert len(set(dataset.digests.values())) == 3
  assert list(dataset.metadata["counts"]["test"].values()) == np.bincount(sentences(40, seed=1)[1]).tolist()
  assert (dataset.metadata["names"], dataset.metadata["chance"]) == (["negative", "positive"], 0.5)


def test_equal_texts_stay_in_one_split_and_each_class_gives_a_tenth(datasets):
  texts, labels = sentences(100)
  datasets["reviews"] = {"train": ([t for t in texts for _ in range(2)], np.repeat(labels, 2)), "test": (texts, labels)}
  dataset = labelled.load(DataConfig(name="reviews"), "", READING)
  assert not set(dataset.splits["train"].texts) & set(dataset.splits["validation"].texts)
  counts = dataset.metadata["counts"]
  for name, expected in zip(("negative", "positive"), np.bincount(labels), strict=True):
    assert counts["validation"][name] == 2 * round(expected / 10)
    assert counts["train"][name] + counts["validation"][name] == 2 * expected


def test_long_texts_are_cut_counted_and_told_in_one_line_and_empty_ones_kept(tmp_path):
  texts, labels = sentences(60)
  texts[0], texts[1] = "", "  a b c d e f g h"
  rows = [f"{text},{label}" for text, label in zip(texts, labels, strict=True)]
  (tmp_path / "rows.csv").write_text("\n".join(["text,label", *rows]))
  lines = []
  dataset = labelled.load(DataConfig(path=str(tmp_path / "rows.csv")), "", READING, log=lines.append)
  assert sum(dataset.metadata["truncated"].values()) == 1
  assert sum(dataset.metadata["empty"].values()) == 1
  assert len(lines) == 1
  assert "1 of " in lines[0]
  lengths = np.concatenate([dataset.splits[split].arrays["length"] for split in SPLITS])
  assert sorted(lengths)[0] == 1
  assert lengths.max() == 6


def test_a_text_that_a_tokenizer_without_class_finds_empty_is_one_token(file, tmp_path):
  train("byte", (), 0).save(tmp_path / "old" / "tokenizer.json")
  part = labelled.Part(["", "ab"], np.zeros(2, np.int32))
  texts, longer = labelled.encoded(part, Tokenizer.load(tmp_path / "old" / "tokenizer.json"), 4)
  np.testing.assert_array_equal(texts.arrays["length"], [1, 2])
  assert not longer


def test_a_second_load_restores_the_tokenizer_and_finds_the_same_data(tmp_path, file):
  first = labelled.load(file, tmp_path / "run", READING)
  assert labelled.load(file, tmp_path / "run", READING).digests == first.digests
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=char, but .*tokenizer\.json is .* of kind word"):
    labelled.load(file, tmp_path / "run", Reading(tokenizer="char", vocabulary=0))
  with pytest.raises(ValueError, match=r"--config\.data\.vocabulary=7, but .*tokenizer\.json has"):
    labelled.load(file, tmp_path / "run", Reading(tokenizer="word", vocabulary=7))


def test_a_pretrained_tokenizer_is_used_and_copied(tmp_path, file):
  train("word", ["zz good n1 n2"], 0, ("class",)).save(tmp_path / "old" / "tokenizer.json")
  reading = Reading(tokenizer="word", vocabulary=7, length=6)
  dataset = labelled.load(file, tmp_path / "new", reading, tokenizer_from=tmp_path / "old")
  assert (tmp_path / "new" / "tokenizer.json").read_bytes() == (tmp_path / "old" / "tokenizer.json").read_bytes()
  assert dataset.metadata["vocabulary"] == 7
  assert labelled.load(file, tmp_path / "new", reading).digests == dataset.digests
  for other in (Reading(tokenizer="word", vocabulary=6, length=6), Reading(tokenizer="bpe", length=6)):
    with pytest.raises(ValueError, match=r"give --config\.data\.tokenizer=word --config\.data\.vocabulary=7"):
      labelled.load(file, tmp_path / "third", other, tokenizer_from=tmp_path / "old")


def test_the_reference_lines_are_of_the_labels_and_of_the_words(sst2):
  dataset = labelled.load(sst2, "", READING)
  assert list(dataset.controls) == ["largest class", "tf-idf + logistic regression"]
  assert dataset.controls["tf-idf + logistic regression"] == 1.0
  train, test = (dataset.splits[split].arrays["label"] for split in ("train", "test"))
  assert dataset.controls["largest class"] == np.mean(test == np.bincount(train).argmax())


def test_an_example_is_described_by_its_text(sst2):
  split = labelled.load(sst2, "", READING).splits["test"]
  assert split.describe(3) == sentences(40, seed=1)[0][3]


@pytest.mark.parametrize("split, label", [("train", 2), ("train", -1), ("test", 5)])
def test_labels_out_of_range_are_refused_by_example(datasets, split, label):
  datasets["reviews"] = {name: sentences(50, seed) for seed, name in enumerate(SPLITS)}
  datasets["reviews"][split][1][7] = label
  with pytest.raises(ValueError, match=rf"=reviews: example 7 of {split} has label {label}, out of range 0 to 1"):
    labelled.load(DataConfig(name="reviews"), "", READING)


def test_bad_readings_and_single_classes_are_refused(datasets, file):
  with pytest.raises(ValueError, match=r"--config\.data\.length=1 is less than 2"):
    labelled.load(file, "", Reading(length=1))
  texts, labels = sentences(50)
  datasets["reviews"] = {"train": (texts, np.zeros_like(labels)), "test": (texts, labels)}
  with pytest.raises(ValueError, match="1 classes in train; give texts of two or more"):
    labelled.load(DataConfig(name="reviews"), "", READING)
  datasets["reviews"] = {"train": (texts, labels), "test": ([" "] * 50, labels)}
  with pytest.raises(ValueError, match="all 50 texts of test are empty"):
    labelled.load(DataConfig(name="reviews"), "", READING)
  with pytest.raises(ValueError, match=r"--config\.data\.text_column=line is no text feature of reviews; .* sentence"):
    labelled.load(DataConfig(name="reviews"), "", Reading(text_column="line"))
