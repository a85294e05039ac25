"""A real task gives one curve on one device and on eight."""

import jax
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.tasks import recall
from attention_lab.train import optimizer, state
from attention_lab.train.prefetch import Prefetcher
from attention_lab.train.step import make_step

STEPS = 20


def losses(attention, sizes):
  config = recall.Config(steps=STEPS, batch=8)
  config.model.attention, config.model.heads, config.model.layers, config.model.dropout = attention, 2, 1, 0.1
  config.data.train, config.data.validation, config.data.test = 64, 8, 8
  config.mesh = MeshConfig(*sizes)
  mesh = meshes.make_mesh(config.mesh, jax.devices()[: int(np.prod(sizes))])
  task = recall.build(config, "", mesh)
  rule = optimizer.make_optimizer(config.optimizer, STEPS)
  now = state.init_state(task, rule, (0,), mesh)
  step, curve = make_step(task, rule, config, mesh), []
  with Prefetcher(task.source.splits["train"], config.batch, (0,), meshes.batch_sharding(mesh), None) as feed:
    for _ in range(STEPS):
      now, metrics = step(now, next(feed)[0])
      curve.append(float(metrics["loss"]))
  return curve


@pytest.mark.parametrize("attention", ["softmax|linear", "alibi|talking_heads"])
def test_20_losses_on_eight_devices_equal_those_on_one(attention):
  single = losses(attention, (1, 1, 1))
  np.testing.assert_allclose(losses(attention, (2, 2, 2)), single, rtol=1e-5)
  assert single[-1] < single[0]
