"""Means over cells of tokens, for variants that read summaries.

A cell is a set of tokens with one id, as a segment of `jax.ops.segment_sum` (not one of packing), or a run of
consecutive indices. Tokens that are not valid count nothing, whatever they hold, and a cell without a valid token has
mean 0 and is not occupied. Time and memory O(S + M) for M cells.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import Call, logits_dtype

Means = tuple[tuple[Array, ...], Bool[Array, "#B M"]]  # means `B M …` of each array, and which cells are occupied


def valid_keys(call: Call, S: int) -> Bool[Array, "#B S"]:
  """The keys that are tokens: neither padding nor an empty slot of a cache."""
  present = call.positions.keys(S) >= 0
  return present if call.mask.kv_valid is None else present & call.mask.kv_valid


def by_id(ids: Int[Array, "#B S"], count: int, valid: Bool[Array, "#B S"], *arrays: Float[Array, "B S *_"]) -> Means:
  """Means over the tokens of each id 0 … count − 1, in float32 or wider; a token with another id belongs to no cell."""
  inside = valid & (ids >= 0) & (ids < count)
  slot = jnp.where(inside, ids, count)
  tokens = jnp.zeros((len(slot), count), jnp.int32).at[jnp.arange(len(slot))[:, None], slot].add(1, mode="drop")

  def mean(array: Array) -> Array:
    cells = jnp.broadcast_to(slot, array.shape[:2])
    total = jnp.zeros((len(array), count, *array.shape[2:]), logits_dtype(array))
    rows = jnp.arange(len(array))[:, None]
    return _divided(total.at[rows, cells].add(_valid(array, inside), mode="drop"), tokens)

  return tuple(mean(array) for array in arrays), tokens > 0


def by_runs(stride: int, valid: Bool[Array, "#B S"], *arrays: Float[Array, "B S *_"]) -> Means:
  """Means over runs of `stride` consecutive tokens, in float32 or wider; the last run may be shorter."""
  S = valid.shape[1]
  count = -(-S // stride)

  def total(array: Array) -> Array:
    padded = jnp.pad(array, ((0, 0), (0, count * stride - S), *[(0, 0)] * (array.ndim - 2)))
    return padded.reshape(len(array), count, stride, *array.shape[2:]).sum(axis=2, dtype=array.dtype)

  tokens = total(valid.astype(jnp.int32))
  return tuple(_divided(total(_valid(array, valid)), tokens) for array in arrays), tokens > 0


def _valid(array: Array, valid: Array) -> Array:
  """The array in the dtype of logits, zeros where a token is not valid."""
  keep = valid.reshape(*valid.shape, *[1] * (array.ndim - 2))
  return jnp.where(keep, array, 0.0).astype(logits_dtype(array))


def _divided(total: Array, tokens: Array) -> Array:
  """Sums over the number of tokens of each cell; 0 for an empty one."""
  return total / jnp.maximum(tokens, 1).astype(total.dtype).reshape(*tokens.shape, *[1] * (total.ndim - 2))
