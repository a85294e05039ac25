"""The best parameters of a run so far, chosen on the validation split and on nothing else.

They are what is tested at the end under `--config.checkpoint.select=best`. With several seeds each has a best step of
its own. In a workdir they are kept in `best/`, so that they outlive a restart: a run that goes on from an earlier step
comes to the same evaluations again, and a choice that lies ahead of it stands.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.train.checkpoint import Checkpoints


class Best:
  """`params` (with a leading axis of seeds where there are several), the `steps` they are from, and their `values`."""

  def __init__(self, higher: bool, seeds: Sequence[int], saves: Checkpoints | None):
    self._sign, self._saves = 1 if higher else -1, saves
    self.params: Any = None
    self.steps, self.values = [0] * len(seeds), [math.nan] * len(seeds)

  def restore(self, target: Any, log: Callable[[str], None]) -> None:
    """Takes up the choice of the run's earlier life, if there is one; `target`: shapes and shardings."""
    found = self._saves and self._saves.restore_chosen(target, log)
    if found:
      self.params, facts = found
      self.steps = facts["steps"]
      self.values = [math.nan if value is None else value for value in facts["values"]]

  def offer(self, step: int, params: Any, values: Sequence[float]) -> None:
    """Takes over the parameters of every seed whose value is better than all before; equal ones stay, NaN is worst."""
    better = [self._is_better(new, old) for new, old in zip(values, self.values, strict=True)]
    if self.params is not None and not any(better):
      return
    taken = np.asarray(better) | (self.params is None)
    self.params = _taken(taken if len(taken) > 1 else taken[0], params, params if self.params is None else self.params)
    self.steps = [step if take else old for take, old in zip(taken, self.steps, strict=True)]
    self.values = [float(new) if take else old for take, new, old in zip(taken, values, self.values, strict=True)]
    if self._saves:
      values = [None if math.isnan(value) else value for value in self.values]
      self._saves.save_params(self.params, {"steps": self.steps, "values": values})

  def _is_better(self, new: float, old: float) -> bool:
    return not math.isnan(new) and (math.isnan(old) or self._sign * new > self._sign * old)


def _taken(taken: Any, params: Any, before: Any) -> Any:
  """A copy, for a training step donates its state; `taken`: of a single run, or for each seed."""

  def pick(taken: jax.Array, params: Any, before: Any) -> Any:
    def one(new: jax.Array, old: jax.Array) -> jax.Array:
      return jnp.where(taken.reshape(taken.shape + (1,) * (new.ndim - taken.ndim)), new, old)

    return jax.tree.map(one, params, before)

  return jax.jit(pick, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, params))(taken, params, before)
