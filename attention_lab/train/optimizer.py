"""AdamW with warm-up and cosine, over the trainable part of the parameters only.

A leaf below a key "fixed" is not shown to the optimizer: no gradient, no state, no decay, not counted. It may be of
integers.
"""

import functools
from collections.abc import Collection
from typing import Any

import jax
import optax

from attention_lab.config import OptimizerConfig


def make_optimizer(
  config: OptimizerConfig, steps: int, undecayed: Collection[str] = ()
) -> optax.GradientTransformation:
  """Global-norm clipping, then AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) along `schedule`.

  Args:
    config: rates and bounds.
    steps: of the run.
    undecayed: paths of leaves that `decayed` leaves out beside biases and scales (`Functional.undecayed`).

  Returns:
    A transformation of the trainable tree of `partition`.
  """
  clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
  mask = functools.partial(decayed, undecayed=undecayed)
  return optax.chain(clip, optax.adamw(schedule(config, steps), weight_decay=config.weight_decay, mask=mask))


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Learning rate of each update, counted from 0.

  Over a warm-up of w updates it rises evenly, peak / (w + 1) at update 0 and the peak at update w; then a cosine falls
  to a tenth of the peak at `steps`.
  """
  peak, warmup = config.learning_rate, steps // 10 if config.warmup < 0 else config.warmup
  if not warmup:
    return optax.cosine_decay_schedule(peak, steps, alpha=0.1)
  return optax.warmup_cosine_decay_schedule(peak / (warmup + 1), peak, warmup, steps, end_value=peak / 10)


def decayed(params: Any, undecayed: Collection[str] = ()) -> Any:
  """True for every leaf that weight decay shrinks: weights of maps and embeddings of tokens, as in BERT and GPT.

  Left out are leaves of one axis, those whose name begins with "bias", "gain" or "scale", and those at the paths
  `undecayed`: vectors of positions and types, learned tokens, and what a variant declares.
  """

  def is_weight(path: tuple, leaf: Any) -> bool:
    named = _name(path[-1]).startswith(("bias", "gain", "scale"))
    return leaf.ndim >= 2 and not named and jax.tree_util.keystr(path, simple=True, separator="/") not in undecayed

  return jax.tree_util.tree_map_with_path(is_weight, params)


def partition(params: Any) -> tuple[Any, Any]:
  """(trainable, fixed): two trees of one shape; a leaf of one is None, which JAX takes for no leaf, in the other."""

  def part(fixed: bool) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: leaf if _is_fixed(path) == fixed else None, params)

  return part(False), part(True)


def merge(trainable: Any, fixed: Any) -> Any:
  """The inverse of `partition`."""
  return jax.tree.map(lambda a, b: b if a is None else a, trainable, fixed, is_leaf=lambda leaf: leaf is None)


def count(params: Any) -> int:
  """The number of trainable parameters."""
  return sum(leaf.size for leaf in jax.tree.leaves(partition(params)[0]))


def _is_fixed(path: tuple) -> bool:
  return any(_name(part) == "fixed" for part in path)


def _name(part: Any) -> str:
  return jax.tree_util.keystr((part,), simple=True)
