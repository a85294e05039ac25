"""AdamW with warm-up and cosine, over the trainable part of the parameters only.

A leaf below a key "fixed" is not shown to the optimizer: no gradient, no state, no decay, not counted. It may be of
integers.
"""

from typing import Any

import jax
import optax

from attention_lab.config import OptimizerConfig


def make_optimizer(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
  """Global-norm clipping, then AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) along `schedule`.

  Decay is on matrices: every leaf of two or more axes, embeddings among them, that is no bias and no norm's scale, as
  in BERT and GPT. It takes the trainable tree of `partition`.
  """
  clip = optax.clip_by_global_norm(config.clip) if config.clip else optax.identity()
  return optax.chain(clip, optax.adamw(schedule(config, steps), weight_decay=config.weight_decay, mask=decayed))


def schedule(config: OptimizerConfig, steps: int) -> optax.Schedule:
  """Learning rate by update: 0 to the peak over the warm-up, then a cosine to a tenth of it at `steps`."""
  peak, warmup = config.learning_rate, config.warmup or steps // 10
  return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end_value=peak / 10)


def decayed(params: Any) -> Any:
  """True for every leaf that weight decay shrinks."""

  def is_matrix(path: tuple, leaf: jax.Array) -> bool:
    return leaf.ndim >= 2 and _name(path[-1]) not in ("bias", "scale")

  return jax.tree_util.tree_map_with_path(is_matrix, params)


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
