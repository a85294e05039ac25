"""Long range: four datasets of long sequences under one name, each with its own fields."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.data import labelled, listops, prepared
from attention_lab.data.labelled_sources import Labelled, Part
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.mesh import make_mesh
from attention_lab.tasks import long_range
from attention_lab.train import loop

SPLITS = ("train", "validation", "test")
LISTOPS = {"length": 24, "train": 200, "validation": 24, "test": 40}


def small(name="", model=None, **data):
  config = long_range.Config(steps=3, batch=8, mesh=MeshConfig(data=1))
  tiny = {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0}
  config.model = dataclasses.replace(config.model, **tiny | (model or {}))
  config.data = dataclasses.replace(config.data, name=name, **(data if name else LISTOPS | data))
  return config


@pytest.fixture
def reviews(monkeypatch):
  texts = {split: [f"A film of {split}, number {n}: schön" for n in range(8)] for split in SPLITS}
  parts = {split: Part(texts[split], np.arange(8) % 2) for split in SPLITS}
  dataset = Labelled("imdb_reviews", "", ["bad", "good"], parts, {})
  monkeypatch.setattr(labelled, "read_labelled", lambda data, *columns: dataset)


@pytest.fixture
def essays(tmp_path):
  """A folder of texts with passages that are long enough."""
  folder, rng = tmp_path / "essays", np.random.default_rng(0)
  folder.mkdir()
  for number in range(40):
    passages = [" ".join(rng.choice(list("abcdefghij"), 60)) for _ in range(8)]
    (folder / f"{number}.txt").write_text("\n\n".join(passages))
  return str(folder)


def traced(task):
  """The names of the sums on a batch of test, without compiling anything."""
  params = jax.eval_shape(task.model.init, jax.random.key(0))
  return jax.eval_shape(task.score, params, next(iter(evaluation_batches(task.source.splits["test"], 4)))).keys()


def test_listops_trains_and_its_wrong_answers_are_kept(tmp_path):
  config = small()
  task = long_range.build(config, str(tmp_path))
  assert {"oracle", "largest class", "operator at the root"} <= set(task.source.controls)
  assert task.source.controls["oracle"] == 1.0
  assert (task.chance, task.tokens_per_example, task.primary) == (0.1, 24, "accuracy")
  mesh = make_mesh(config.mesh, jax.devices()[:1])
  (result,) = loop.run(task, config, tmp_path, mesh=mesh, log=lambda line: None)
  rows = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
  errors = [row for row in rows if row["split"] == "test"]
  assert result["metrics"]["test"]["accuracy"] == pytest.approx(1 - len(errors) / 40)
  assert errors
  for row in errors:
    assert row.keys() == {"split", "index", "input", "label", "predicted", "confidence"}
    ids = {"]": listops.CLOSE} | {str(digit): listops.DIGIT + digit for digit in range(10)}
    ids |= {f"[{name}": listops.OPERATOR + index for index, name in enumerate(listops.OPERATORS)}
    assert listops.evaluate(np.array([ids[word] for word in row["input"].split()])) == int(row["label"])
    assert row["predicted"] != row["label"]


def test_pixels_are_as_many_as_the_image_has():
  task = long_range.build(small("pixels", images="digits"), "")
  assert (task.tokens_per_example, task.source.metadata["classes"]) == (64, 10)
  assert "oracle" not in task.source.controls
  assert traced(task) == {"nll", "correct", "examples"}


def test_reviews_are_read_byte_by_byte_and_cut_to_the_length(reviews, tmp_path):
  task = long_range.build(small("imdb_bytes", length=20), str(tmp_path))
  batch = task.source.splits["test"][np.arange(8)]
  text = "A film of test, number 0: schön".encode()[:19]
  assert batch["tokens"][0].tolist() == [task.source.metadata["special"]["class"], *(1 + byte for byte in text)]
  assert task.source.metadata["truncated"] == dict.fromkeys(SPLITS, 8)
  assert traced(task) == {"nll", "correct", "examples"}
  assert long_range.build(small("imdb_bytes"), "").tokens_per_example == 1024


def test_passages_come_with_types_that_the_model_tells_apart(essays, tmp_path):
  task = long_range.build(small("same_article", path=essays, length=64, vocabulary=40), str(tmp_path / "run"))
  assert "types" in task.source.splits["test"][np.arange(2)]
  shapes = jax.eval_shape(task.model.init, jax.random.key(0))
  assert shapes["types"]["table"].shape == (2, 16)
  assert traced(task) == {"nll", "correct", "examples"}
  assert task.chance == 0.5


def test_folds_are_parts_of_train_and_validation():
  parts = [long_range.build(small(folds=2, fold=fold), "").source for fold in range(2)]
  assert [part.metadata["fold"] for part in parts] == [{"folds": 2, "fold": 0}, {"folds": 2, "fold": 1}]
  held = [{part.splits["validation"].describe(i) for i in range(112)} for part in parts]
  assert len(held[0]) == len(held[1]) == 112
  assert not held[0] & held[1]
  assert parts[0].digests["test"] == long_range.build(small(), "").source.digests["test"]


def test_a_baseline_stands_in_the_same_table():
  task = long_range.build(small(model={"architecture": "bag_of_words", "heads": 4, "layers": 2}), "")
  assert (task.resolved_positions, task.inspect) == ("none", None)
  assert traced(task) == {"nll", "correct", "examples"}


@pytest.mark.parametrize(
  "name, group, fields, message",
  [
    ("listop", "data", {}, "--config.data.name=listop .*did you mean 'listops'.*choices: listops, imdb_bytes"),
    ("", "data", {"length": 3}, "--config.data.length=3 is too short"),
    ("", "data", {"train": 0}, "--config.data.train=0 is less than 1"),
    ("", "data", {"shortest": 30}, "--config.data.shortest=30 must lie between"),
    ("", "data", {"path": "x"}, "--config.data.path=x: only texts have files; give --config.data.name=same_article"),
    ("", "data", {"side": 4}, "--config.data.side=4 means nothing to listops: leave it at 0; it reads .*arguments"),
    ("pixels", "data", {"depth": 3}, "--config.data.depth=3 means nothing to pixels: leave it at 10"),
    ("pixels", "data", {"length": 64}, "--config.data.length=64 means nothing to pixels: leave it at 0"),
    ("pixels", "data", {"images": ""}, "--config.data.images is empty; give digits"),
    ("pixels", "data", {"images": "digits", "side": 4}, "--config.data.side=4: digits are 8x8"),
    ("imdb_bytes", "data", {"tokenizer": "bpe"}, "--config.data.tokenizer=bpe means nothing to imdb_bytes"),
    ("same_article", "data", {"length": 4}, "--config.data.length=4 has no room"),
    ("", "data", {"folds": 2, "fold": 2}, "--config.data.fold=2"),
    ("", "model", {"types": 2}, "--config.model.types=2: listops has no types of tokens; give 0"),
    ("", "model", {"architecture": "lstmm"}, "did you mean 'lstm'"),
  ],
)
def test_bad_settings_are_one_line_that_names_the_flag(name, group, fields, message, tmp_path):
  config = small(name)
  setattr(config, group, dataclasses.replace(getattr(config, group), **fields))
  with pytest.raises(ValueError, match=message) as caught:
    long_range.build(config, str(tmp_path))
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_images_that_are_not_there_are_refused_by_their_own_flag(tmp_path):
  with pytest.raises(ValueError, match=r"--config.data.images=fashion_mnis .*did you mean 'fashion_mnist'"):
    long_range.build(small("pixels", images="fashion_mnis", dir=str(tmp_path)), "")


def test_a_model_that_cannot_be_is_refused_before_data_is_made(monkeypatch):
  monkeypatch.setattr(listops, "generate", None)
  monkeypatch.setattr(prepared, "columns", None)
  with pytest.raises(Unsupported, match="causal by construction"):
    long_range.build(small(model={"attention": "fox"}), "")
