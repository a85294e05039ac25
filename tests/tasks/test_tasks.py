"""Tasks: found by name, built from flags, scored by sums that honour the weight."""

import dataclasses
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import config as configs
from attention_lab.attention.base import Unsupported
from attention_lab.data.dataset import Arrays, Dataset, digest
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.tasks import base, image_classification, language_modeling, recall
from attention_lab.tasks.parts import sequences

KEY = jax.random.key(0)
MODULES = {module.NAME: module for module in (language_modeling, image_classification, recall)}


def small(name, **model):
  """The task's own configuration, on as little as it takes."""
  config = MODULES[name].Config()
  config.model = dataclasses.replace(config.model, **{"width": 16, "layers": 1, "heads": 2, "dropout": 0.0} | model)
  if name == "recall":
    config.data = dataclasses.replace(config.data, train=40, validation=8, test=20)
  if name == "language_modeling":
    config.data = dataclasses.replace(config.data, length=16, vocabulary=300)
  return config


@pytest.fixture(scope="module")
def built(tmp_path_factory):
  """Every task with its parameters."""
  tasks = {name: MODULES[name].build(small(name), str(tmp_path_factory.mktemp(name))) for name in MODULES}
  return {name: (task, jax.jit(task.model.init)(KEY)) for name, task in tasks.items()}


TASKS = {"image_classification", "language_modeling", "long_range", "masked_language_modeling", "question_answering"}


def test_a_task_is_found_by_its_file_name():
  assert set(base.names()) == TASKS | {"mechanisms", "recall", "text_classification"}
  assert all(base.load(name) is module for name, module in MODULES.items())
  for name in base.names():
    task_module = base.load(name)
    assert (task_module.NAME, callable(task_module.build)) == (name, True)
    assert isinstance(task_module.Config(), configs.Config)
  with pytest.raises(ValueError, match=r"unknown task 'recal', did you mean 'recall'\?; choices: image_classification"):
    base.load("recal")


@pytest.mark.parametrize("name", MODULES)
def test_the_untrained_model_is_near_chance(built, name):
  task, params = built[name]
  batch = next(iter(evaluation_batches(task.source.splits["test"], 20)))
  metrics = task.summarize({key: float(value) for key, value in jax.jit(task.score)(params, batch).items()})
  assert task.primary in metrics
  options = {"language_modeling": 300, "image_classification": 10, "recall": 32}[name]
  assert abs(metrics["loss"] - math.log(options)) < 1.5
  assert metrics["accuracy"] < 0.5


@pytest.mark.parametrize("name", MODULES)
def test_score_counts_no_padding_and_its_mean_is_the_loss(built, name):
  task, params = built[name]
  split = task.source.splits["test"]
  score, loss = jax.jit(task.score), jax.jit(lambda params, batch: task.loss(params, batch, None))
  whole = split[np.arange(6)]
  parts = [score(params, batch) for batch in evaluation_batches(_First(split, 6), 4)]
  sums = {key: float(sum(part[key] for part in parts)) for key in parts[0]}
  value, logged = loss(params, whole)
  np.testing.assert_allclose(task.summarize(sums)["loss"], value, rtol=1e-5)
  np.testing.assert_allclose(logged["loss"], value)


class _First:
  """The first examples of a split."""

  def __init__(self, split, count):
    self._split, self._count = split, count

  def __len__(self):
    return self._count

  def __getitem__(self, indices):
    return self._split[indices]


def test_bits_per_byte_counts_all_bytes_of_the_targets():
  sums = {"nll": 8 * math.log(2), "tokens": 2.0, "correct": 1.0, "bytes": 4.0, "words": 2.0}
  assert language_modeling.summarize(sums) == {
    "bits_per_byte": pytest.approx(2),
    "word_perplexity": pytest.approx(2.0**4),
    "loss": 4 * math.log(2),
    "accuracy": 0.5,
  }


def test_recall_is_solved_from_99_percent():
  solved = [recall.summarize({"nll": 0.0, "correct": right, "questions": 1000.0})["solved"] for right in (989.0, 990.0)]
  assert solved == [0.0, 1.0]


def test_masked_targets_do_not_count(built):
  task, params = built["language_modeling"]
  batch = task.source.splits["test"][np.arange(2)]
  batch["mask"] = np.ones_like(batch["mask"])
  batch["mask"][:, 8:] = 0.0
  changed = batch | {"tokens": np.concatenate([batch["tokens"][:, :9], 5 + 0 * batch["tokens"][:, 9:]], axis=1)}
  loss = jax.jit(lambda batch: task.loss(params, batch, None)[0])
  np.testing.assert_allclose(loss(batch), loss(changed), rtol=1e-6)


def test_packed_documents_are_scored_as_each_alone(built):
  task, params = built["language_modeling"]
  first, second = np.array([7, 8, 9, 10, 11]), np.array([12, 13, 14, 15, 16, 17, 18])
  tokens = np.concatenate([first, second, np.zeros(5, int)])[None].astype(np.int32)
  segments = np.repeat([1, 2, 0], [5, 7, 5])[None].astype(np.int32)
  score = jax.jit(task.score)

  def sums(tokens, **more):
    return score(
      params,
      {"tokens": tokens, "bytes": np.array([9]), "words": np.array([2]), "weight": np.ones(1, np.float32)} | more,
    )

  packed = sums(tokens, segments=segments)
  alone = [sums(part[None].astype(np.int32)) for part in (first, second)]
  assert packed["tokens"] == 10
  for name in ("nll", "tokens", "correct"):
    np.testing.assert_allclose(packed[name], alone[0][name] + alone[1][name], rtol=1e-5)


def test_positions_restart_in_every_segment():
  places = language_modeling.restarting(jnp.array([[1, 1, 2, 2, 2, 0], [3, 1, 1, 3, 3, 3]]))
  np.testing.assert_array_equal(places, [[0, 1, 0, 1, 2, 0], [0, 0, 1, 0, 1, 2]])


@pytest.mark.parametrize("name", ["language_modeling", "recall"])
@pytest.mark.parametrize("attention", ["linformer", "fourier", "softmax|linformer(rank=4)"])
def test_a_causal_task_refuses_a_variant_that_is_not_causal_before_it_reads_data(name, attention, monkeypatch):
  monkeypatch.setattr(language_modeling.text, "load", _never)
  monkeypatch.setattr(recall.recall, "generate", _never)
  with pytest.raises(
    Unsupported, match=rf"(linformer|fourier).* is not causal, and {name} .*: take .* softmax"
  ) as caught:
    MODULES[name].build(small(name, attention=attention, layers=2), "")
  assert "\n" not in str(caught.value)


def _never(*args, **kwargs):
  raise AssertionError("data was read")


@pytest.mark.parametrize(
  "name, group, fields, message",
  [
    ("recall", "model", {"heads": 3}, "--config.model.heads=3 does not divide --config.model.width=16"),
    ("recall", "model", {"attention": "2*softmax+linear"}, "2 heads cannot be shared out"),
    (
      "recall",
      "model",
      {"head_width": 3},
      "--config.model.positions=rope needs a --config.model.head_width that 2 divides",
    ),
    ("recall", "model", {"positions": "sincos2d"}, "sincos2d needs images"),
    ("recall", "data", {"path": "x.txt"}, "--config.data.path=x.txt: recall is generated"),
    ("recall", "data", {"name": "recal"}, "did you mean 'recall'"),
    (
      "image_classification",
      "data",
      {"length": 128},
      "--config.data.length=128: an image has as many tokens as patches",
    ),
    ("image_classification", "model", {"patch": 3}, "--config.model.patch=3 does not divide images of 8×8"),
    ("image_classification", "model", {"pooling": "max"}, "--config.model.pooling=max is unknown"),
    ("language_modeling", "data", {"name": "digits"}, "--config.data.name=digits"),
    ("language_modeling", "model", {"dtype": "float16"}, "--config.model.dtype=float16 is unknown"),
    ("recall", "model", {"remat": "ful"}, "--config.model.remat=ful is unknown, did you mean 'full'"),
  ],
)
def test_bad_settings_are_one_line_that_names_the_flag(name, group, fields, message, tmp_path):
  config = small(name)
  setattr(config, group, dataclasses.replace(getattr(config, group), **fields))
  with pytest.raises(ValueError, match=message) as caught:
    MODULES[name].build(config, str(tmp_path))
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_a_task_says_what_its_positions_came_to():
  came_to = {
    attention: recall.build(small("recall", attention=attention), "").resolved_positions
    for attention in ("softmax", "alibi", "pooling")
  }
  assert came_to == {"softmax": "rope", "alibi": "none", "pooling": "learned"}


def test_dropout_needs_the_key_and_the_loss_is_finite_with_it(tmp_path):
  task = image_classification.build(small("image_classification", dropout=0.5), str(tmp_path))
  params, batch = jax.jit(task.model.init)(KEY), task.source.splits["train"][np.arange(4)]
  losses = [jax.jit(task.loss)(params, batch, key)[0] for key in (KEY, KEY, jax.random.key(1))]
  chex.assert_tree_all_finite(losses)
  assert losses[0] == losses[1] != losses[2]


def made(order, label):
  """A source of 40 examples; the 20 first have equal tokens in pairs."""
  tokens = np.random.default_rng(0).integers(1, 9, (40, 4)).astype(np.int32)
  tokens[:10] = tokens[10:20]
  train = {"tokens": tokens[order], "length": np.full(40, 4, np.int32), "label": label[order]}
  test = {"tokens": tokens[:5], "length": np.full(5, 4, np.int32), "label": label[:5]}
  splits = {"train": Arrays(train), "validation": Arrays(test), "test": Arrays(test)}
  metadata = {
    "sizes": {"train": 40, "test": 5},
    "counts": {"train": {"a": 9, "b": 9}, "test": {"a": 1}},
    "names": ["a", "b"],
  }
  return Dataset("made", splits, {name: digest(split.arrays) for name, split in splits.items()}, metadata, {})


@pytest.mark.parametrize("limit", [7, 15, 39])
def test_a_limit_keeps_the_same_examples_whatever_their_order(limit):
  label, subsets = (np.arange(40) // 10 % 2).astype(np.int32), []  # equal tokens have unequal labels
  for seed in range(5):
    source = made(np.random.default_rng(seed).permutation(40), label)
    part = sequences.limited(source, limit)
    train = part.splits["train"]
    batch = train[np.arange(len(train))]
    subsets.append(sorted(map(tuple, np.column_stack([batch["tokens"], batch["label"]]).tolist())))
    counts = np.bincount(batch["label"], minlength=2).tolist()
    assert part.metadata["sizes"] == {"train": limit, "test": 5}
    assert part.metadata["counts"] == {"train": dict(zip("ab", counts, strict=True)), "test": {"a": 1}}
    assert part.digests["train"] != source.digests["train"]
    assert (part.digests["test"], part.splits["test"]) == (source.digests["test"], source.splits["test"])
  assert len(subsets[0]) == limit
  assert all(subset == subsets[0] for subset in subsets)


def test_no_limit_or_a_large_one_is_the_source_itself():
  source = made(np.arange(40), np.zeros(40, np.int32))
  assert sequences.limited(source, 0) is sequences.limited(source, 40) is source
  with pytest.raises(ValueError, match=r"--config\.data\.limit=3 leaves one class in train"):
    sequences.limited(source, 3)
  with pytest.raises(ValueError, match=r"--config\.data\.limit=-1 is negative"):
    sequences.limited(source, -1)
