import jax
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.train import evaluation
from attention_lab.train import optimizer as optimizers
from attention_lab.train import state as states
from attention_lab.train import step as steps
from attention_lab.train.prefetch import Prefetcher

STEPS = 20


def begin(task, config, mesh, seeds=(0,)):
  optimizer = optimizers.make_optimizer(config.optimizer, config.steps)
  has_seed_axis = states.has_seed_axis(seeds)
  state = states.init_state(task, optimizer, seeds, mesh)
  sharding = meshes.batch_sharding(mesh, has_seed_axis=has_seed_axis)
  batches = Prefetcher(task.source.splits["train"], config.batch, seeds, sharding)
  return state, batches, steps.make_step(task, optimizer, config, mesh, has_seed_axis=has_seed_axis)


def train(task, config, mesh, seeds=(0,)):
  """(losses [steps] or [steps, seeds], last state)."""
  state, batches, step = begin(task, config, mesh, seeds)
  losses = []
  with batches:
    for _ in range(config.steps):
      state, metrics = step(state, next(batches)[0])
      losses.append(jax.device_get(metrics["loss"]))
  return np.array(losses), state


@pytest.fixture(scope="module")
def single(tiny, config, one_device):
  return train(tiny(), config(steps=STEPS), one_device)


@pytest.fixture(scope="module")
def ready(tiny, config, one_device):
  """(a function that makes the state at step 0, a batch, the step)."""
  state, batches, step = begin(tiny(), config(), one_device)
  with batches:
    batch, _ = next(batches)
  host = jax.device_get(state)
  return lambda: jax.device_put(host, one_device.devices.flat[0]), batch, step


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_20_losses_on_8_devices_equal_those_on_1(sizes, tiny, config, single):
  mesh = meshes.make_mesh(MeshConfig(*sizes))
  losses, state = train(tiny(), config(steps=STEPS), mesh)
  np.testing.assert_allclose(losses, single[0], rtol=1e-5)
  shardings = meshes.shardings(state, mesh)
  for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
    assert leaf.sharding.is_equivalent_to(sharding, leaf.ndim)
  assert len(state.params["mlp"]["up"]["kernel"].sharding.device_set) == 8


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_losses_of_seeds_in_one_program_equal_their_single_runs(
  platform, tiny, config, one_device, single, monkeypatch
):
  for module in (states, steps, evaluation):
    monkeypatch.setattr(module, "platform", lambda _: platform)
  losses, state = train(tiny(), config(steps=STEPS), one_device, seeds=(3, 0))
  np.testing.assert_allclose(losses[:, 1], single[0], rtol=1e-5)
  assert np.abs(losses[:, 0] - losses[:, 1]).min() > 0
  evaluate = evaluation.Evaluator(tiny(), one_device, 8, seeds=(3, 0))
  assert evaluate(state.params, tiny().source.splits["test"])[1] == pytest.approx(
    evaluation.evaluate(tiny(), single[1].params, tiny().source.splits["test"], one_device, 5), rel=1e-5
  )


def test_micro_batches_add_up_to_the_full_batch(tiny, config, single):
  task = tiny(dropout=False)
  mesh = meshes.make_mesh(MeshConfig(2, 1, 1))
  full, _ = train(task, config(steps=6), mesh)
  parts, _ = train(task, config(steps=6, optimizer__accumulate=4), mesh)
  np.testing.assert_allclose(parts, full, rtol=1e-5)


def test_dropout_differs_between_steps_and_fixed_leaves_stay(ready):
  fresh, batch, step = ready
  fixed, losses = jax.device_get(fresh().params["attention"]["params"]), []
  for number in range(2):  # two steps at the same parameters
    start = fresh()
    state, metrics = step(start._replace(step=start.step + number), batch)
    losses.append(float(metrics["loss"]))
  assert losses[0] != losses[1]
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params["attention"]["params"]), fixed)


def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(ready):
  fresh, batch, step = ready
  state, _ = step(fresh(), batch)
  state, _ = step(state, batch)
  before = jax.device_get((state.params, state.opt_state))
  state, metrics = step(state, batch | {"factor": batch["factor"].at[3].set(np.nan)})
  assert (int(state.step), int(metrics["skipped"]), int(metrics["streak"]), bool(metrics["finite"])) == (3, 1, 1, False)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get((state.params, state.opt_state)), before)
  state, metrics = step(state, batch)
  assert (int(metrics["skipped"]), int(metrics["streak"])) == (1, 0)
  assert np.abs(jax.device_get(state.params["head"]["kernel"]) - before[0]["head"]["kernel"]).max() > 0


def test_the_state_is_donated(ready):
  fresh, batch, step = ready
  state = fresh()
  step(state, batch)
  assert state.params["mlp"]["up"]["kernel"].is_deleted()
