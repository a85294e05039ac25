"""The mesh of devices, with three axes, and the table of how arrays are split over it.

  data     splits the batch
  fsdp     splits the batch, and every parameter and its optimizer state
  tensor   splits heads, MLP width and vocabulary

Models know nothing of it: the sharding of a parameter follows from the end of its path. Adam's moments are split as
their parameters are, for their paths end alike.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from attention_lab.config import Config, MeshConfig

AXES = ("data", "fsdp", "tensor")  # of every mesh
BATCH = ("data", "fsdp")  # axes that split a batch

RULES: tuple[tuple[str, P], ...] = (  # the first that matches a path gives the axes that `tensor` splits
  (r"(^|/)per_head(/|$)", P("tensor")),
  (r"(^|/)(query|key|value)/kernel$", P(None, "tensor")),  # D N H, D K H
  (r"(^|/)(query|key|value)/bias$", P("tensor")),  # N H
  (r"(^|/)out/kernel$", P("tensor")),  # N V D
  (r"(^|/)(up|gate)/kernel$", P(None, "tensor")),  # D F
  (r"(^|/)(up|gate)/bias$", P("tensor")),  # F
  (r"(^|/)down/kernel$", P("tensor")),  # F D
  (r"(^|/)embedding$", P("tensor")),  # vocabulary D
)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """The mesh of a configuration, with automatic partitioning.

  Args:
    config: the size of each axis; their product may be smaller than the number of devices, which takes the first ones.
    devices: None = all that there are.

  Raises:
    ValueError: sizes that do not fit the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  for name in AXES:
    least = 0 if name == "data" else 1
    if getattr(config, name) < least:
      raise ValueError(f"--config.mesh.{name}={getattr(config, name)} is less than {least}")
  inner = config.fsdp * config.tensor
  sizes = (config.data or len(devices) // inner, config.fsdp, config.tensor)
  if math.prod(sizes) > len(devices) or (not config.data and len(devices) % inner):
    sizes_given = " × ".join(f"--config.mesh.{name}={getattr(config, name)}" for name in AXES)
    fit = f"needs {config.data * inner}" if config.data else f"needs a multiple of {inner}"
    raise ValueError(f"{sizes_given} {fit} devices and there are {len(devices)}: the product of the three must fit")
  chosen = devices[: math.prod(sizes)]
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=chosen)


def check(config: Config, mesh: Mesh) -> None:
  """Raises ValueError, naming the flags, for heads or a batch that the mesh cannot split evenly."""
  model, tensor = config.model, mesh.shape["tensor"]
  for name, heads in (("heads", model.heads), ("kv_heads", model.kv_heads or model.heads)):
    if heads % tensor:
      raise ValueError(
        f"--config.model.{name}={heads} cannot be split over --config.mesh.tensor={tensor} devices: take a multiple"
      )
  parts, accumulate = batch_parts(mesh), config.optimizer.accumulate
  if config.batch % (parts * accumulate):
    by = " × ".join(f"{name} {mesh.shape[name]}" for name in BATCH)
    micro = f" in {accumulate} micro-batches" if accumulate > 1 else ""
    raise ValueError(
      f"--config.batch={config.batch}{micro} cannot be split over {by} devices: take a multiple of {parts * accumulate}"
    )


def batch_parts(mesh: Mesh) -> int:
  """The number of parts that the mesh splits a batch into."""
  return math.prod(mesh.shape[name] for name in BATCH)


def partition_spec(path: str, shape: Sequence[int], mesh: Mesh) -> P:
  """The axes that split the array at `path` (`layers/0/mlp/up/kernel`): by RULES, and the largest one left by `fsdp`.

  An axis that does not divide stays whole, and so do vectors on `fsdp`: they are small, and gathering them costs more.
  """
  rule = next((rule for pattern, rule in RULES if re.search(pattern, path)), P())
  axes: list[str | None] = [None] * len(shape)
  for axis, name in enumerate(rule[: len(shape)]):
    if name and shape[axis] % mesh.shape[name] == 0:
      axes[axis] = name
  free = [axis for axis, size in enumerate(shape) if axes[axis] is None and size and size % mesh.shape["fsdp"] == 0]
  if mesh.shape["fsdp"] > 1 and len(shape) > 1 and free:
    axes[max(free, key=lambda axis: shape[axis])] = "fsdp"
  return P(*axes)


def shardings(tree: Any, mesh: Mesh, *, has_seed_axis: bool = False) -> Any:
  """The shardings of a tree of parameters, or of a state, by their paths.

  Args:
    tree: arrays or ShapeDtypeStructs.
    mesh: the devices.
    has_seed_axis: all arrays have a leading axis of seeds, which is not split.

  Returns:
    A NamedSharding for every leaf of `tree`.

  """

  def sharding(path: tuple, leaf: Any) -> NamedSharding:
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    if has_seed_axis:
      return NamedSharding(mesh, P(None, *partition_spec(name, leaf.shape[1:], mesh)))
    return NamedSharding(mesh, partition_spec(name, leaf.shape, mesh))

  return jax.tree_util.tree_map_with_path(sharding, tree)


def batch_sharding(mesh: Mesh, *, has_seed_axis: bool = False) -> NamedSharding:
  """The sharding of a batch: examples over data and fsdp, behind the axis of seeds (not split) where there is one."""
  return NamedSharding(mesh, P(None, BATCH) if has_seed_axis else P(BATCH))


def replicated(mesh: Mesh) -> NamedSharding:
  """The same array on every device."""
  return NamedSharding(mesh, P())


def put(tree: Any, sharding: jax.sharding.Sharding) -> Any:
  """Host arrays, which all processes have alike, on the devices; each process sends the parts of its own devices."""
  if jax.process_count() == 1:
    return jax.device_put(tree, sharding)
  return jax.tree.map(lambda a: jax.make_array_from_callback(a.shape, sharding, lambda index: a[index]), tree)
