"""Mechanisms: one task for all generated datasets, and what becomes of sequences longer than those of training."""

import dataclasses

import jax
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.data.mechanisms import generation
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.mesh import make_mesh
from attention_lab.tasks import base, mechanisms
from attention_lab.train import loop

SIZES = {"train": 40, "validation": 8, "test": 12}
QUIET = lambda line: None


def small(name="", model=None, **data):
  config = mechanisms.Config(steps=2, batch=8, mesh=MeshConfig(data=1))
  config.model = dataclasses.replace(config.model, **{"width": 16, "layers": 1, "heads": 2} | (model or {}))
  config.data = dataclasses.replace(config.data, name=name, **SIZES | data)
  return config


def sums(task, params, split, batch):
  score = jax.jit(task.score)
  parts = [score(params, examples) for examples in evaluation_batches(split, batch)]
  return {name: float(sum(part[name] for part in parts)) for name in parts[0]}


def test_the_task_is_found_by_its_file_name_and_recalls_in_context_where_nothing_is_said():
  assert base.load("mechanisms") is mechanisms
  task = mechanisms.build(small(length=20), "")
  assert (task.name, task.source.name, task.tokens_per_example) == ("mechanisms", "in_context", 20)


@pytest.mark.parametrize("name", generation.MECHANISMS)
def test_every_dataset_makes_a_task_whose_model_has_its_vocabulary(name):
  task = mechanisms.build(small(name), "")
  shape = generation.resolve_shape(name, {})
  params = jax.eval_shape(task.model.init, jax.random.key(0))
  assert params["tokens"]["embedding"].shape == (shape.vocabulary, 16)
  assert (task.tokens_per_example, task.chance) == (shape.length, task.source.metadata["chance"])
  batch = next(iter(evaluation_batches(task.source.splits["test"], 4)))
  assert jax.eval_shape(task.score, params, batch).keys() == {"nll", "correct", "questions"}


def test_a_run_is_judged_on_the_trained_length_and_told_of_the_longer_ones():
  config = small(length=16, items=3, longest=64)
  task = mechanisms.build(config, "")
  (result,) = loop.run(task, config, None, mesh=make_mesh(config.mesh, jax.devices()[:1]), log=QUIET)
  common = {"accuracy", "loss", "solved"}
  assert set(result["metrics"]["validation"]) == common
  assert set(result["metrics"]["test"]) == common | {"accuracy@32", "accuracy@64", "effective_length"}
  assert result["metrics"]["test"]["effective_length"] == 0


def test_sums_of_each_length_are_those_of_its_examples_unpadded_and_alone():
  task = mechanisms.build(small("needle", length=16, longest=32), "")
  params = task.model.init(jax.random.key(0))
  split = task.source.splits["test"]
  padded = sums(task, params, split, 9)  # 24 examples: the last batch is padded with examples that do not count
  for number, length in enumerate((16, 32)):
    rows = split.arrays["longer"] == number
    cut = {name: split.arrays[name][rows, :length] for name in ("tokens", "targets")}
    alone = jax.jit(task.score)(params, cut | {"weight": np.ones(12, np.float32)})
    for name, value in alone.items():
      np.testing.assert_allclose(padded[f"{name}@{length}" if number else name], value, rtol=1e-5)
  assert padded["questions"] == padded["questions@32"] == 24


@pytest.mark.parametrize(
  "accuracies, effective", [((0.9, 0.85, 0.84), 64), ((0.84, 1, 1), 0), ((1, 0.5, 0.9), 32), ((0.85, 0.85, 0.85), 128)]
)
def test_the_effective_length_is_the_longest_before_the_first_fall_below_the_threshold(accuracies, effective):
  endings = ("", "@64", "@128")
  totals = {
    f"{name}{ending}": value
    for ending, accuracy in zip(endings, accuracies, strict=True)
    for name, value in {"nll": 50.0, "correct": 100.0 * accuracy, "questions": 100.0}.items()
  }
  metrics = mechanisms.summarize((32, 64, 128), totals)
  assert metrics["effective_length"] == effective
  assert [metrics[f"accuracy{ending}"] for ending in endings] == pytest.approx(accuracies)
  assert metrics["loss"] == 0.5


@pytest.mark.parametrize(
  "model, message",
  [
    ({"positions": "learned"}, r"config\.model\.positions=learned \(here learned\) has parameters .*: give rope"),
    ({"attention": "pooling"}, r"config\.model\.positions=auto \(here learned\) has parameters .*: take a variant"),
    ({"attention": "synthesizer"}, "^synthesizer has parameters for each position, .* never trained: take a variant"),
    ({"attention": "long_convolution"}, r"^long_convolution has parameters .*, or --config\.data\.longest=0$"),
  ],
)
def test_what_was_not_trained_beyond_the_length_is_refused_by_name_where_longer_is_asked(model, message, monkeypatch):
  mechanisms.build(small(model=model), "")
  monkeypatch.setattr(generation, "generate", None)
  with pytest.raises(Unsupported, match=message) as caught:
    mechanisms.build(small(model=model, longest=64), "")
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "model", [{"positions": "sinusoidal"}, {"attention": "alibi"}, {"attention": "bigbird(block=4)"}]
)
def test_what_goes_on_beyond_the_trained_length_is_tested_there(model):
  task = mechanisms.build(small(model=model, longest=64), "")
  params = jax.eval_shape(task.model.init, jax.random.key(0))
  totals = jax.eval_shape(task.score, params, next(iter(evaluation_batches(task.source.splits["test"], 4))))
  assert totals.keys() == {f"{name}{ending}" for name in ("nll", "correct", "questions") for ending in ("", "@64")}


@pytest.mark.parametrize(
  "name, fields, message",
  [
    ("inducton", {}, r"--config\.data\.name=inducton .*did you mean 'induction'"),
    ("", {"path": "x.txt"}, r"--config\.data\.path=x\.txt: mechanisms are generated"),
    ("needle", {"items": 3}, r"--config\.data\.items=3 means nothing to needle: leave it at 0; it reads length"),
    ("", {"hops": 2}, r"--config\.data\.hops=2 means nothing to in_context"),
    ("compression", {"longest": 64}, r"--config\.data\.longest=64 means nothing to compression"),
    ("", {"longest": 100}, r"--config\.data\.longest=100 is not length=32 doubled"),
    ("", {"test": 0}, r"--config\.data\.test=0 is less than 1"),
  ],
)
def test_bad_settings_are_one_line_that_names_the_flag(name, fields, message, tmp_path):
  with pytest.raises(ValueError, match=message) as caught:
    mechanisms.build(small(name, **fields), str(tmp_path))
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_variant_that_is_not_causal_is_refused_before_anything_is_generated(monkeypatch):
  monkeypatch.setattr(generation, "generate", None)
  with pytest.raises(Unsupported, match=r"linformer.* is not causal, and mechanisms"):
    mechanisms.build(small(model={"attention": "linformer"}), "")
