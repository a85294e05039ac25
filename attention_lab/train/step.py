"""One training step: gradients of a batch, or of its micro-batches, and an update unless they are not finite."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Array

from attention_lab import mesh as meshes
from attention_lab.config import Config
from attention_lab.tasks.base import Task
from attention_lab.train import diagnosis
from attention_lab.train import optimizer as optimizers
from attention_lab.train.state import State, map_over_seeds, platform, step_key

LARGEST_STREAK = 5  # steps in a row without finite gradients that stop a run

Batch = dict[str, Array]
Metrics = dict[str, Array]


class Diverged(ValueError):
  """Training cannot go on: its gradients, or its state, are not finite."""

  exit_code = 3


def make_step(
  task: Task, optimizer: optax.GradientTransformation, config: Config, mesh: Mesh, *, has_seed_axis: bool = False
) -> Callable[[State, Batch], tuple[State, Metrics]]:
  """The training step, jitted; where a gradient or the loss is not finite it changes nothing but its counts.

  Args:
    task: its `loss` is minimized.
    optimizer: takes the trainable tree of `optimizer.partition`.
    config: `optimizer.accumulate` is the number of micro-batches, which are cut after `task.prepare`: their mean is the
      loss of the whole batch, but for a variant's auxiliary losses, which are means over a micro-batch, and for random
      bits.
    mesh: the devices, on which the state lies as `mesh.RULES` say.
    has_seed_axis: all arrays have a leading axis of seeds, which do not meet.

  Returns:
    (state, batch) -> (state, metrics), which donates the state. Metrics: `loss` and the other scalars of the task,
    `grad_norm` (before clipping) and those of `diagnosis.norms`, `finite`, and `skipped` and `streak` of `State`.

  """

  def step_of_one_seed(state: State, batch: Batch) -> tuple[State, Metrics]:
    trainable, fixed = optimizers.partition(state.params)
    key = step_key(state.seed, state.step)

    def loss(trainable: Any, batch: Batch, key: Array) -> tuple[Array, dict[str, Array]]:
      return task.loss(optimizers.merge(trainable, fixed), batch, key)

    if task.prepare and config.optimizer.accumulate > 1:
      batch = dict(task.prepare(batch, jax.random.fold_in(key, 0)))
    value, scalars, grads = _gradients(loss, trainable, batch, key, config.optimizer.accumulate, mesh)
    norm = optax.global_norm(grads)
    finite = jnp.isfinite(value) & jnp.isfinite(norm)
    updates, opt_state = optimizer.update(grads, state.opt_state, trainable)
    changed = (optimizers.merge(optax.apply_updates(trainable, updates), fixed), opt_state)
    params, opt_state = jax.tree.map(lambda new, old: jnp.where(finite, new, old), changed, state[:2])
    bad = 1 - finite.astype(jnp.int32)
    state = State(params, opt_state, state.step + 1, state.seed, state.skipped + bad, (state.streak + 1) * bad)
    counts = {"finite": finite, "skipped": state.skipped, "streak": state.streak}
    parts = {f"grad_norm/{name}": value for name, value in diagnosis.norms(grads).items()}
    return state, {"loss": value, **scalars, "grad_norm": norm, **parts, **counts}

  def step(state: State, batch: Batch) -> tuple[State, Metrics]:
    state, metrics = map_over_seeds(step_of_one_seed, has_seed_axis, platform(mesh))(state, batch)
    shardings = meshes.shardings(state, mesh, has_seed_axis=has_seed_axis)
    return jax.lax.with_sharding_constraint((state, metrics), (shardings, meshes.replicated(mesh)))

  return jax.jit(step, donate_argnums=0)


def _gradients(
  loss: Callable, trainable: Any, batch: Batch, key: Array, micro: int, mesh: Mesh
) -> tuple[Array, Any, Any]:
  """Loss, scalars and gradients: means over `micro` micro-batches, each with a key of its own."""

  def gradients(batch: Batch, index: Any) -> tuple[Array, Any, Any]:
    (value, scalars), grads = jax.value_and_grad(loss, has_aux=True)(trainable, batch, jax.random.fold_in(key, index))
    return value, scalars, grads

  if micro == 1:
    return gradients(batch, 0)

  def body(total: Any, part: tuple[Batch, Array]) -> tuple[Any, None]:
    return jax.tree.map(jnp.add, total, gradients(*part)), None

  parts = (jax.tree.map(lambda array: _interleaved(array, micro, mesh), batch), jnp.arange(micro))
  shapes = jax.eval_shape(gradients, *jax.tree.map(lambda array: array[0], parts))
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
  total, _ = jax.lax.scan(body, zeros, parts)
  return jax.tree.map(lambda leaf: leaf / micro, total)


def _interleaved(array: Array, micro: int, mesh: Mesh) -> Array:
  """Micro-batch i is examples i, i + micro, …, so that every device keeps its own examples."""
  array = jnp.swapaxes(array.reshape(-1, micro, *array.shape[1:]), 0, 1)
  return jax.lax.with_sharding_constraint(array, NamedSharding(mesh, P(None, meshes.BATCH)))
