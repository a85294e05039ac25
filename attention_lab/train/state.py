"""The state of a run: everything that a training step changes, as one tree of arrays.

For several seeds at once every array has a leading axis of seeds.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from attention_lab import mesh as meshes
from attention_lab.tasks.base import Task
from attention_lab.train import optimizer as optimizers

FAST_COMPILE = {"xla_backend_optimization_level": 0}  # compiler options of programs that are run once


class State(NamedTuple):
  """The state of a run after `step` steps."""

  params: Any  # nested dict, float32, the "fixed" leaves included
  opt_state: optax.OptState  # of the trainable leaves
  step: Int[Array, ""]  # steps done, skipped ones included
  seed: UInt32[Array, ""]  # of the initial values and of dropout
  skipped: Int[Array, ""]  # steps whose gradient was not finite, and which changed nothing
  streak: Int[Array, ""]  # how many of them were the last ones


def init_state(task: Task, optimizer: optax.GradientTransformation, seeds: Sequence[int], mesh: Mesh) -> State:
  """The state at step 0, made where it lies on the mesh; with a leading axis of seeds when there are several."""

  def init(seeds_: Array) -> State:
    state = map_over_seeds(_initializer(task, optimizer), has_seed_axis(seeds), platform(mesh))(seeds_)
    return jax.lax.with_sharding_constraint(state, meshes.shardings(state, mesh, has_seed_axis=has_seed_axis(seeds)))

  return jax.jit(init, compiler_options=FAST_COMPILE)(_seed_array(seeds))


def abstract_state(task: Task, optimizer: optax.GradientTransformation, seeds: Sequence[int], mesh: Mesh) -> State:
  """Shape, dtype and sharding of every array of `init_state`, with nothing computed."""
  init = map_over_seeds(_initializer(task, optimizer), has_seed_axis(seeds), platform(mesh))
  shapes = jax.eval_shape(init, _seed_array(seeds))
  return with_shardings(shapes, mesh, seeds)


def abstract_params(task: Task, seeds: Sequence[int], mesh: Mesh) -> Any:
  """Shape, dtype and sharding of the parameters alone."""
  init = map_over_seeds(lambda seed: task.model.init(init_key(seed)), has_seed_axis(seeds), platform(mesh))
  shapes = jax.eval_shape(init, _seed_array(seeds))
  return with_shardings(shapes, mesh, seeds)


def with_shardings(shapes: Any, mesh: Mesh, seeds: Sequence[int]) -> Any:
  """The ShapeDtypeStructs `shapes` with the shardings of `mesh.RULES`."""
  shardings = meshes.shardings(shapes, mesh, has_seed_axis=has_seed_axis(seeds))
  struct = lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
  return jax.tree.map(struct, shapes, shardings)


def init_key(seed: UInt32[Array, ""]) -> Array:
  """The key of a run's initial values."""
  return jax.random.split(jax.random.key(seed))[0]


def step_key(seed: UInt32[Array, ""], step: Int[Array, ""]) -> Array:
  """The key of one step's dropout."""
  return jax.random.fold_in(jax.random.split(jax.random.key(seed))[1], step)


def has_seed_axis(seeds: Sequence[int]) -> bool:
  """Whether the arrays of a run of these seeds have a leading axis of seeds: those of a single seed have none."""
  return len(seeds) > 1


def map_over_seeds(function: Callable, has_seed_axis: bool, platform: str) -> Callable:
  """`function` over the leading axis of seeds, where there is one: side by side (`vmap`), and on a CPU one by one.

  There three small models together have three times the temporaries, which fall out of the cache and of the allocator's
  pool: side by side they took twice the time that they take one by one (`lax.map`), in the same one program.
  """
  if not has_seed_axis:
    return function
  return jax.vmap(function) if platform != "cpu" else lambda *args: jax.lax.map(lambda parts: function(*parts), args)


def platform(mesh: Mesh) -> str:
  """The kind of the mesh's devices: "cpu", "gpu" or "tpu"."""
  return mesh.devices.flat[0].platform


def compiler_options(mesh: Mesh) -> dict[str, int] | None:
  """The compiler options of programs that are run many times; None = XLA's defaults.

  On a CPU LLVM's first level: steps of nine variants in small models took 0.92 to 1.02 of their time, and 0.35 to 0.82
  of the time to compile on one core.
  """
  return {"xla_backend_optimization_level": 1} if platform(mesh) == "cpu" else None


def _seed_array(seeds: Sequence[int]) -> np.ndarray:
  return np.asarray(seeds if has_seed_axis(seeds) else seeds[0], np.uint32)


def _initializer(task: Task, optimizer: optax.GradientTransformation) -> Callable[[Any], State]:
  def init(seed: UInt32[Array, ""]) -> State:
    params = task.model.init(init_key(seed))
    zero = jnp.zeros((), jnp.int32)
    return State(params, optimizer.init(optimizers.partition(params)[0]), zero, seed, zero, zero)

  return init
