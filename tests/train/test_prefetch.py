import itertools

import jax
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.data import pipeline
from attention_lab.train.evaluation import Evaluator
from attention_lab.train.prefetch import Prefetcher


@pytest.fixture
def split(tiny):
  return tiny().source.splits["train"]


def test_batches_are_those_of_the_stream_and_positions_go_on_from_there(split, one_device):
  sharding = meshes.batch_sharding(one_device)
  expected = list(itertools.islice(pipeline.train_batches(split, 8, 3), 6))
  with Prefetcher(split, 8, (3,), sharding) as feed:
    got = [next(feed) for _ in range(4)]
  with Prefetcher(split, 8, (3,), sharding, got[-1][1]) as feed:
    got += [next(feed) for _ in range(2)]
  for (batch, _), wanted in zip(got, expected, strict=True):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(batch), wanted)


def test_each_seed_has_the_stream_of_its_single_run(split):
  mesh = meshes.make_mesh(MeshConfig(2, 1, 1))
  with Prefetcher(split, 8, (3, 5), meshes.batch_sharding(mesh, has_seed_axis=True)) as feed:
    batch, positions = next(feed)
  for index, seed in enumerate((3, 5)):
    np.testing.assert_array_equal(batch["tokens"][index], next(pipeline.train_batches(split, 8, seed))["tokens"])
  assert len(positions) == 2
  assert batch["tokens"].addressable_shards[0].data.shape == (2, 4, 3)


def test_padding_counts_nothing_whatever_the_batch_and_mesh(tiny):
  task, results = tiny(), []
  params = jax.jit(task.model.init)(jax.random.key(0))
  for sizes, batch in (((1, 1, 1), 21), ((4, 2, 1), 5)):
    mesh = meshes.make_mesh(MeshConfig(*sizes))
    with_shardings = jax.device_put(params, meshes.shardings(params, mesh))
    results += Evaluator(task, mesh, batch)(with_shardings, task.source.splits["validation"])
  assert results[0] == pytest.approx(results[1], rel=1e-6)
