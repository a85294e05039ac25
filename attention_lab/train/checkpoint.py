"""Checkpoints in `checkpoints/STEP`: parameters, optimizer, data position. The only file that knows Orbax.

`best/N` holds the N-th choice of the best parameters, with no optimizer: the ones that are tested at the end under
`--config.checkpoint.select=best`.

What Orbax does not do is done here: a newest step that does not restore is set aside for the one before it, a workdir
whose steps all fail stops the run, shapes and dtypes are compared before they are read (Orbax casts silently), and no
state that is not finite is written.
"""

import contextlib
import functools
import logging
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from attention_lab.config import CheckpointConfig, Config
from attention_lab.train.state import FAST_COMPILE, State
from attention_lab.train.step import Diverged

FOLDER, BEST, ASIDE = "checkpoints", "best", "broken_checkpoints"
AGREEMENT_EVERY = 100  # steps after which several processes ask whether the time has come to save
NO_CHECKPOINT = "no checkpoint was made"
DataPositions = list[dict[str, Any]]  # where the data stand, one entry a seed
RENAMED = {"own": "params"}  # keys of parameter paths in older checkpoints, and what they are called now


class BrokenCheckpoint(ValueError):
  """A workdir has checkpoints, and none of them can be restored."""

  exit_code = 4


class SaveSchedule:
  """The steps that are saved: every `every`-th, the last, and where `minutes` have passed since the one before."""

  def __init__(self, config: Config):
    self._config, self._steps, self._saved = config.checkpoint, config.steps, time.monotonic()

  def due(self, step: int) -> bool:
    """Whether the state after `step` is saved; the same in all processes."""
    config = self._config
    late = bool(config.minutes) and time.monotonic() - self._saved >= 60 * config.minutes
    if config.minutes and jax.process_count() > 1:  # their clocks differ, and all must save or none
      asked = step % AGREEMENT_EVERY == 0
      late = asked and bool(multihost_utils.broadcast_one_to_all(np.asarray(late)))
    due = step == self._steps or late or bool(config.every and step % config.every == 0)
    if due:
      self._saved = time.monotonic()
    return due


class Checkpoints:
  """The checkpoints of one run; saving goes on in the background, and `close` waits for it.

  Args:
    workdir: the run's folder.
    config: how many of the newest are kept.
    name: the folder in `workdir`: `checkpoints` or `best`.
    read_only: nothing is written, moved or cleaned.
  """

  def __init__(self, workdir: pathlib.Path, config: CheckpointConfig, *, name: str = FOLDER, read_only: bool = False):
    import orbax.checkpoint as ocp

    logging.getLogger("absl").addFilter(_is_worth_reading)
    self._ocp, self._workdir, self._folder, self._keep = ocp, workdir, workdir / name, config.keep
    self._options = ocp.CheckpointManagerOptions(
      max_to_keep=config.keep or None, create=not read_only, read_only=read_only, cleanup_tmp_directories=not read_only
    )
    self._manager = self._open()

  def save(self, step: int, state: State, positions: DataPositions) -> None:
    """Starts to write the state after `step` steps and the positions of its data; Diverged if it is not finite."""
    if not self._keep:
      return
    if not bool(_all_finite((state.params, state.opt_state))):
      raise Diverged(
        f"training diverged: the state after step {step} is not finite, and is not saved; {self.describe()}; lower "
        "--config.optimizer.learning_rate"
      )
    rest = {name: value for name, value in state._asdict().items() if name != "params"}
    self._save(step, {"params": state.params, "rest": rest}, {"positions": positions})

  def save_params(self, params: Any, metadata: dict[str, Any]) -> None:
    """Starts to write parameters as the next choice, with their steps and values (JSON)."""
    if self._keep:
      self._save((self.latest() or 0) + 1, {"params": params}, metadata)

  def latest(self) -> int | None:
    """The newest step on disk, whether it can be restored or not; None without any."""
    return max(self._manager.all_steps(), default=None)

  def describe(self) -> str:
    """A clause that says which checkpoint there is."""
    return NO_CHECKPOINT if self.latest() is None else f"the checkpoint of step {self.latest()} is kept"

  def restore(self, target: State, log: Callable[[str], None] = print) -> tuple[int, State, DataPositions] | None:
    """The newest step that can be restored; newer ones that cannot are moved to `broken_checkpoints/`.

    Args:
      target: shapes, dtypes and shardings (`state.abstract_state`).
      log: prints a line for each step that is set aside.

    Returns:
      (step, state, positions of the data); None where nothing was saved.

    Raises:
      BrokenCheckpoint: no step can be restored.
      ValueError: a step holds other shapes or dtypes.
    """
    rest = {name: value for name, value in target._asdict().items() if name != "params"}
    newest = self._newest({"params": target.params, "rest": rest}, log)
    if newest is None:
      return None
    step, items = newest
    return step, State(items["params"], **items["rest"]), items["data"]["positions"]

  def restore_params(self, target: Any, log: Callable[[str], None] = print) -> tuple[int, Any]:
    """(step, parameters) of the newest step that can be restored; BrokenCheckpoint if there is none."""
    newest = self._newest({"params": target}, log)
    if newest is None:
      raise BrokenCheckpoint(f"--workdir={self._workdir} has no checkpoint")
    step, items = newest
    return step, items["params"]

  def restore_chosen(self, target: Any, log: Callable[[str], None] = print) -> tuple[Any, dict[str, Any]] | None:
    """(parameters, their steps and values) of the newest choice that can be restored; None where none was saved."""
    newest = self._newest({"params": target}, log)
    return newest and (newest[1]["params"], newest[1]["data"])

  def shapes(self) -> Any:
    """Shape and dtype of the newest step's parameters, as they were saved; BrokenCheckpoint where they are unknown."""
    step = self.latest()
    try:
      saved = self._manager.item_metadata(step)["params"].tree
    except Exception as error:  # whatever a damaged or absent step makes Orbax raise
      raise BrokenCheckpoint(f"--workdir={self._workdir} has no checkpoint that can be read ({error})") from None
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), saved, is_leaf=_is_array)
    return _renamed(shapes, RENAMED)

  def close(self) -> None:
    """Waits until all is written, and raises what went wrong in the background."""
    self._manager.close()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *_: Any) -> None:
    self.close()

  def _save(self, step: int, items: dict[str, Any], data: dict[str, Any]) -> None:
    args = {name: self._ocp.args.StandardSave(item) for name, item in items.items()}
    self._manager.save(step, args=self._ocp.args.Composite(**args, data=self._ocp.args.JsonSave(data)))

  def _open(self) -> Any:
    ocp = self._ocp
    standard = {name: ocp.StandardCheckpointHandler() for name in ("params", "rest")}
    handlers = standard | {"data": ocp.JsonCheckpointHandler()}
    return ocp.CheckpointManager(self._folder.absolute(), options=self._options, item_handlers=handlers)

  def _newest(self, targets: dict[str, Any], log: Callable[[str], None]) -> tuple[int, dict[str, Any]] | None:
    """(step, items) of the newest step that can be restored; those that cannot are logged and set aside."""
    failures: dict[int, str] = {}
    for step in sorted(self._manager.all_steps(), reverse=True):
      try:
        items = self._read(step, targets)
      except _Misfit as error:
        raise ValueError(f"checkpoint {step} of --workdir={self._workdir} does not fit: {error}") from None
      except Exception as error:  # whatever a damaged file makes Orbax raise
        failures[step] = f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"
        continue
      for broken, reason in failures.items():
        aside = "" if self._options.read_only else f" and is set aside in {ASIDE}/"
        log(f"checkpoint {broken} cannot be restored{aside}; {step} is taken in its place ({reason})")
      self._set_aside(failures)
      return step, items
    if failures:
      step, reason = next(iter(failures.items()))
      message = f"no checkpoint of --workdir={self._workdir} can be restored; give another folder to start over"
      raise BrokenCheckpoint(f"{message} ({step}: {reason})")
    return None

  def _read(self, step: int, targets: dict[str, Any]) -> dict[str, Any]:
    metadata = self._manager.item_metadata(step)
    for name, target in targets.items():
      _compare(_renamed(metadata[name].tree, RENAMED), target)
    saved = metadata["params"].tree
    is_older = _described(saved).keys() != _described(_renamed(saved, RENAMED)).keys()
    names = {new: old for old, new in RENAMED.items()} if is_older else {}
    args = {name: self._ocp.args.StandardRestore(_renamed(target, names)) for name, target in targets.items()}
    composite = self._ocp.args.Composite(**args, data=self._ocp.args.JsonRestore())
    items = dict(self._manager.restore(step, args=composite).items())
    return items | {name: _renamed(items[name], RENAMED) for name in targets}

  def _set_aside(self, steps: dict[int, str]) -> None:
    if not steps or self._options.read_only or jax.process_index():
      return
    aside = self._workdir / ASIDE
    aside.mkdir(exist_ok=True)
    for step in steps:
      name = next(aside / f"{step}.{n}" for n in range(1000) if not (aside / f"{step}.{n}").exists())
      with contextlib.suppress(FileNotFoundError):
        (self._folder / str(step)).rename(name)
    self._manager.reload()


class BestParams:
  """The best parameters of a run so far, chosen on the validation split and on nothing else.

  With several seeds each has a best step of its own, and `params` a leading axis of seeds; `steps` and `values` are the
  steps they are from and the metric's values there. In a workdir they are saved in `best/`, so that they outlive a
  restart: a run that goes on from an earlier step comes to the same evaluations again, and a choice that lies ahead of
  it stands.
  """

  def __init__(self, higher_is_better: bool, seeds: Sequence[int], checkpoints: Checkpoints | None):
    self._sign, self._checkpoints = 1 if higher_is_better else -1, checkpoints
    self.params: Any = None
    self.steps, self.values = [0] * len(seeds), [math.nan] * len(seeds)

  def restore(self, target: Any, log: Callable[[str], None]) -> None:
    """Takes up the choice of the run's earlier life, if there is one; `target`: shapes and shardings."""
    chosen = self._checkpoints and self._checkpoints.restore_chosen(target, log)
    if chosen:
      self.params, metadata = chosen
      self.steps = metadata["steps"]
      self.values = [math.nan if value is None else value for value in metadata["values"]]

  def offer(self, step: int, params: Any, values: Sequence[float]) -> None:
    """Takes over the parameters of every seed whose value is better than all before; equal ones stay, NaN is worst."""
    better = [self._is_better(new, old) for new, old in zip(values, self.values, strict=True)]
    if self.params is not None and not any(better):
      return
    replaced = np.asarray(better) | (self.params is None)
    before = params if self.params is None else self.params
    self.params = _replace(replaced if len(replaced) > 1 else replaced[0], params, before)
    self.steps = [step if new else old for new, old in zip(replaced, self.steps, strict=True)]
    self.values = [float(new) if by else old for by, new, old in zip(replaced, values, self.values, strict=True)]
    if self._checkpoints:
      finite = [None if math.isnan(value) else value for value in self.values]
      self._checkpoints.save_params(self.params, {"steps": self.steps, "values": finite})

  def _is_better(self, new: float, old: float) -> bool:
    return not math.isnan(new) and (math.isnan(old) or self._sign * new > self._sign * old)


def _is_worth_reading(record: logging.LogRecord) -> bool:
  """The log filter that drops Orbax's lines on every step it takes, and on damaged files, which it then raises for."""
  return record.levelno > logging.ERROR or "orbax" not in record.pathname


def _renamed(tree: Any, names: dict[str, str]) -> Any:
  """The tree with keys of its dicts renamed, but nothing below such a key: what lies there is named by a variant."""
  either = {*names, *names.values()}

  def rename(node: Any) -> Any:
    return {names.get(key, key): child for key, child in node.items()} if isinstance(node, dict) else node

  return jax.tree.map(rename, tree, is_leaf=lambda node: isinstance(node, dict) and not either.isdisjoint(node))


class _Misfit(Exception):
  """Arrays of a checkpoint that are not those of the target."""


def _compare(saved: Any, target: Any) -> None:
  there, here = _described(saved), _described(target)
  names = [name for name in sorted(here | there) if here.get(name) != there.get(name)]
  if names:
    shown = [f"{name} is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here" for name in names[:3]]
    more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
    raise _Misfit("; ".join(shown) + more)


def _described(tree: Any) -> dict[str, str]:
  """`{"layers/0/kernel": "float32[64, 64]"}`."""
  leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=_is_array)
  described = [f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}" for _, leaf in leaves]
  names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
  return dict(zip(names, described, strict=True))


def _is_array(leaf: Any) -> bool:
  return hasattr(leaf, "dtype")


@functools.partial(jax.jit, compiler_options=FAST_COMPILE)
def _all_finite(tree: Any) -> jax.Array:
  floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
  return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats]))


def _replace(replaced: Any, params: Any, before: Any) -> Any:
  """`params` where `replaced` (a single run, or each seed), else `before`; copied, for a step donates its state."""

  def select(replaced: jax.Array, params: Any, before: Any) -> Any:
    def where(new: jax.Array, old: jax.Array) -> jax.Array:
      return jnp.where(replaced.reshape(replaced.shape + (1,) * (new.ndim - replaced.ndim)), new, old)

    return jax.tree.map(where, params, before)

  return jax.jit(select, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(replaced, params, before)
