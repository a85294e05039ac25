"""Micro-batches: the gradient of a step is that of its whole batch, on every task and mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.data.dataset import Arrays, Dataset
from attention_lab.tasks import base
from attention_lab.tasks.parts import span_answers
from attention_lab.train import optimizer as optimizers
from attention_lab.train import state as states
from attention_lab.train.step import make_step

BATCH = 16
TEXT = {"length": 24, "tokenizer": "word", "vocabulary": 0}
GENERATED = {"length": 16, "train": 64, "validation": 8, "test": 8}
CASES = {  # name -> the task, and the fields of its data
  "windows": ("language_modeling", TEXT),
  "packed": ("language_modeling", TEXT | {"packing": True}),
  "masked": ("masked_language_modeling", TEXT),
  "in_context": ("mechanisms", GENERATED | {"name": "in_context"}),
  "fuzzy": ("mechanisms", GENERATED | {"name": "fuzzy", "length": 24}),
  "noisy": ("mechanisms", GENERATED | {"name": "noisy", "length": 24}),
  "recall": ("recall", GENERATED | {"vocabulary": 16, "pairs": 2}),
  "listops": ("long_range", GENERATED | {"name": "listops"}),
  "texts": ("text_classification", TEXT),
  "spans": ("question_answering", {"length": 12, "buckets": False}),
  "images": ("image_classification", {"mixup": 0.4}),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
  """Paths of texts by task: documents of unequal lengths, and labelled rows."""
  folder, draws = tmp_path_factory.mktemp("files"), np.random.default_rng(0)
  sentence = lambda: " ".join([*(f"w{draws.integers(20)}" for _ in range(draws.integers(2, 9))), "end."])
  documents = folder / "documents"
  documents.mkdir()
  for number in range(30):
    (documents / f"{number:02}.txt").write_text(" ".join(sentence() for _ in range(draws.integers(2, 9))))
  rows = [f"{sentence()} n{number}\t{'ab'[number % 2]}" for number in range(60)]
  (folder / "rows.tsv").write_text("\n".join(["text\tlabel", *rows]))
  language = dict.fromkeys(("language_modeling", "masked_language_modeling"), str(documents))
  return language | {"text_classification": str(folder / "rows.tsv")}


def build(case, files, mesh):
  """(the task, its configuration): one small layer that compiles fast, without dropout."""
  name, data = CASES[case]
  module = base.load(name)
  config = module.Config(batch=BATCH)
  config.model = dataclasses.replace(config.model, attention="pooling", layers=1, width=8, heads=2, dropout=0.0)
  config.data = dataclasses.replace(config.data, **data, path=files.get(name, ""))
  if case == "spans":
    config.model.types = span_answers.METADATA["types"]
    return span_answers.task(name, config, spans(config.data.length), "rope", mesh=mesh), config
  return module.build(config, "", mesh), config


def spans(length):
  """Rows of texts, each with the ends of a span."""
  draws, rows = np.random.default_rng(0), (BATCH, length)
  arrays = {"tokens": draws.integers(1, 20, rows), "types": draws.integers(0, 2, rows)}
  arrays |= {"length": draws.integers(4, length, BATCH), "start": np.full(BATCH, 1), "end": np.arange(BATCH) % 3 + 1}
  split = Arrays({name: array.astype(np.int32) for name, array in arrays.items()})
  metadata = {"length": length, "vocabulary": 20}
  return Dataset("spans", dict.fromkeys(("train", "validation", "test"), split), {}, metadata, {})


def examples(case, task):
  """A batch of training examples; of windows the last ones, with padding, and four of them without a target."""
  split = task.source.splits["train"]
  batch = dict(split[np.arange(len(split) - BATCH, len(split)) if case == "windows" else np.arange(BATCH)])
  if case == "images":
    batch |= {"label_b": np.roll(batch["label"], 1), "mix": np.linspace(0, 1, BATCH, dtype=np.float32)}
  if case == "windows":
    assert not batch["mask"].all()
    batch["mask"][::4] = 0.0  # those of one micro-batch of four
  return jax.tree.map(jnp.asarray, batch)


def stepped(case, files, accumulate, sizes, params=None):
  """(initial parameters, the gradient as one vector, the metrics) of a step."""
  mesh = meshes.make_mesh(MeshConfig(*sizes), jax.devices()[: int(np.prod(sizes))])
  task, config = build(case, files, mesh)
  config.optimizer.accumulate = accumulate
  recorder = optax.GradientTransformation(  # the state is the gradient
    lambda params: jax.tree.map(jnp.zeros_like, params),
    lambda grads, _, params: (jax.tree.map(jnp.zeros_like, grads), grads),
  )
  params = jax.device_get(jax.jit(task.model.init)(jax.random.key(0))) if params is None else params
  zero = np.int32(0)
  state = states.State(params, recorder.init(optimizers.partition(params)[0]), zero, np.uint32(0), zero, zero)
  state = jax.device_put(state, meshes.shardings(state, mesh))
  batch = meshes.put(examples(case, task), meshes.batch_sharding(mesh))
  state, metrics = make_step(task, recorder, config, mesh)(state, batch)
  leaves = jax.device_get(jax.tree.leaves(state.opt_state))
  return params, np.concatenate([np.ravel(leaf) for leaf in leaves]), metrics


def assert_same(case, files, sizes):
  """Four micro-batches on these devices give the gradient and the metrics of a whole batch on one."""
  params, whole, logged = stepped(case, files, 1, (1, 1, 1))
  _, parts, of_parts = stepped(case, files, 4, sizes, params)
  assert np.linalg.norm(whole) > 0
  np.testing.assert_allclose(np.linalg.norm(parts - whole) / np.linalg.norm(whole), 0.0, atol=1e-5)
  assert of_parts.keys() == logged.keys()
  for name in logged:
    np.testing.assert_allclose(of_parts[name], logged[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("case", ["windows", "fuzzy"])
def test_micro_batches_have_the_gradient_and_the_metrics_of_the_whole_batch(case, files):
  assert_same(case, files, (1, 1, 1))


def test_micro_batches_on_eight_devices_have_the_gradient_of_the_whole_batch_on_one(files):
  assert_same("masked", files, (2, 2, 2))


@pytest.mark.long
@pytest.mark.parametrize("sizes", [(1, 1, 1), (4, 1, 1), (1, 4, 1), (2, 2, 2)])
@pytest.mark.parametrize("case", CASES)
def test_micro_batches_on_any_mesh_have_the_gradient_of_the_whole_batch_on_one_device(case, sizes, files):
  assert_same(case, files, sizes)


def test_every_task_is_among_the_cases():
  assert {name for name, _ in CASES.values()} == set(base.names())


def test_a_batch_without_a_target_is_divided_by_one():
  counted = jnp.zeros((4, 3))
  batch = base.with_target_rate({}, counted)
  assert float(base.target_count({}, counted)) == float(base.target_count(batch, counted)) == 1.0
