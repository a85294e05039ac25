"""Pre-trained parameters: what a fine-tune takes from the workdir of another run."""

import functools
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.models import position_encodings
from attention_lab.train import workdir as workdirs
from attention_lab.train.checkpoint import FOLDER, Checkpoints
from attention_lab.train.restored import read_config, selected_folder

SHARED = (  # the settings that shape the parameters taken over, and what their inputs mean
  "config.model.attention",
  "config.model.layers",
  "config.model.width",
  "config.model.heads",
  "config.model.kv_heads",
  "config.model.head_width",
  "config.model.mlp_width",
  "config.model.positions",
  "config.model.norm",
  "config.model.norm_place",
  "config.model.mlp",
  "config.model.shared_layers",
  "config.model.types",
  "config.model.architecture",
  "config.model.size",
  "config.model.patch",
  "config.model.pooling",
  "config.model.registers",
  "config.model.stages",
  "config.model.block",
  "config.data.tokenizer",
  "config.data.vocabulary",
)


def check(config: configs.Config, workdir: str | os.PathLike[str]) -> configs.Config:
  """The configuration of the run in `workdir`; ValueError naming all shared fields in which `config` differs."""
  before = _read(workdir)
  trusted = spec.packages(config.model.attention)
  here, there = _settings(config, trusted), _settings(before, trusted)
  names = [name for name in SHARED if name in here and name in there and here[name] != there[name]]
  if names:
    shown = "; ".join(f"{name} is {json.dumps(there[name])} there and {json.dumps(here[name])} here" for name in names)
    fix = f"give --{names[0]}={there[names[0]]}" if len(names) == 1 else "give the values from there"
    raise ValueError(f"--config.pretrained={workdir} is of another model: {shown}; {fix}")
  return before


def adopt(config: configs.Config, workdir: str | os.PathLike[str]) -> str:
  """Gives the shared settings of `config` that are at their defaults the values of the run in `workdir`.

  Returns a line that names them; "" for none. What is set otherwise stays, for `check` to compare.
  """
  before, default = _read(workdir), configs.flatten(type(config)())
  here, there = configs.flatten(config), configs.flatten(before)
  taken = [n for n in SHARED if n in here and n in there and here[n] == default[n] != there[n]]
  for name in taken:
    *path, last = name.split(".")[1:]
    setattr(functools.reduce(getattr, path, config), last, there[name])
  shown = ", ".join(f"{name.removeprefix('config.')} {there[name]}" for name in taken)
  return f"as in {workdir}: {shown}" if taken else ""


def initial(
  config: configs.Config, workdir: str | os.PathLike[str], layout: tuple[tuple[int, int], int] | None = None
) -> dict[str, Any]:
  """The parameters that another run tests, newest or best; its data are not needed.

  Args:
    config: the configuration of the run that takes them.
    workdir: the folder of the other run.
    layout: rows and columns of patches, and tokens before them, to which a learned table of positions is brought.

  Returns:
    Nested dicts of host arrays.

  Raises:
    ValueError: a model that does not match `config`, a folder without a run or with several seeds, positions that are
      of no grid.
    BrokenCheckpoint: nothing can be restored.
  """
  before = check(config, workdir)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  with Checkpoints(
    pathlib.Path(workdir), before.checkpoint, name=selected_folder(before), read_only=True
  ) as checkpoints:
    shapes = checkpoints.shapes()
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device), shapes)
    params = checkpoints.restore_params(target)[1]
  try:
    return jax.device_get(_resized(params, *layout) if layout else params)
  except ValueError as error:
    raise ValueError(f"--config.pretrained={workdir}: {error}; give images of other proportions") from None


def is_needed(workdir: str | os.PathLike[str]) -> bool:
  """Whether a run in `workdir` would begin at step 0; one that goes on has its parameters."""
  folder = pathlib.Path(workdir)
  steps = (folder / FOLDER).glob("[0-9]*")
  return not workdir or not ((folder / workdirs.FINAL).exists() or any(path.name.isdigit() for path in steps))


def overlaid(params: Any, pretrained: Any, *, has_seed_axis: bool = False) -> tuple[Any, str]:
  """Puts pre-trained arrays in the place of those that have their path, shape and dtype.

  Args:
    params: fresh parameters, on the devices.
    pretrained: host arrays, as `initial` gives them.
    has_seed_axis: `params` has a leading axis of seeds, which all get the same.

  Returns:
    (parameters, a line that says which are the pre-trained ones).

  Raises:
    ValueError: none of the arrays fits.
  """
  arrays = {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(pretrained)}
  fresh: list[str] = []

  def take(path: tuple, leaf: jax.Array) -> jax.Array:
    other, shape = arrays.get(_name(path)), leaf.shape[1:] if has_seed_axis else leaf.shape
    if other is None or other.shape != shape or other.dtype != leaf.dtype:
      fresh.append(_name(path))
      return leaf
    return meshes.put(np.broadcast_to(other, leaf.shape), leaf.sharding)

  merged = jax.tree_util.tree_map_with_path(take, params)
  names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
  taken = len(names) - len(fresh)
  if not taken:
    raise ValueError("none of the pre-trained arrays has a place in this model; give the folder of a like one")
  unused = len(arrays) - taken
  rest = f"; {unused} of the pre-trained have no place here" if unused else ""
  return merged, f"{taken} of {len(names)} arrays are the pre-trained ones; fresh: {_shown(fresh, names)}{rest}"


def _resized(params: Any, grid: tuple[int, int], extra: int) -> Any:
  """The parameters with every learned table of positions for that grid."""

  def resize(path: tuple, leaf: jax.Array) -> jax.Array:
    is_table = _name(path).endswith("learned/table")
    return position_encodings.resized_table(leaf, grid, extra) if is_table else leaf

  return jax.tree_util.tree_map_with_path(resize, params)


def _read(workdir: str | os.PathLike[str]) -> configs.Config:
  """The configuration of the one run in a folder."""
  record, _, before = read_config(workdir, "--config.pretrained")
  if "seeds" in record:
    raise ValueError(f"--config.pretrained={workdir} holds {len(record['seeds'])} seeds: give the folder of one run")
  return before


def _settings(config: configs.Config, trusted: frozenset[str]) -> dict[str, Any]:
  """The shared settings, with defaults that depend on others written out; only `trusted` packages are imported."""
  fields, model = configs.flatten(config), config.model
  is_trusted = spec.packages(model.attention) <= trusted
  written = {
    "config.model.attention": spec.canonical(model.attention) if is_trusted else model.attention,
    "config.model.kv_heads": model.kv_heads or model.heads,
    "config.model.head_width": model.head_width or model.width // max(model.heads, 1),
    "config.model.mlp_width": model.mlp_width or 4 * model.width,
  }
  return {name: fields[name] for name in SHARED if name in fields} | written


def _shown(fresh: list[str], names: list[str]) -> str:
  """Top-level parts that are fresh as a whole by their names, other arrays by their paths."""
  tops = {name.partition("/")[0] for name in names}
  whole = {top for top in tops if {n for n in names if n.partition("/")[0] == top} <= set(fresh)}
  single = [name for name in fresh if name.partition("/")[0] not in whole]
  return ", ".join([*sorted(whole), *single]) or "none"


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")
