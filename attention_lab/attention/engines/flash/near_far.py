"""Patterns as two disjoint parts, what is near and what is far, each a map of its own, merged by their sums.

The positions of queries and keys are 0, 1, 2, … in all of them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import Call
from attention_lab.attention.engines.flash import forward, tiles
from attention_lab.attention.engines.flash.block_mask import MaskPattern, padded
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions

_OF_KEYS = {"kv_valid": 1, "k_segments": 1, "explicit": 3}  # the arrays of a mask that have keys, along this axis

Part = tuple[Float[Array, "B T N V"], Float[Array, "B N T"]]  # out, and logarithms of sums of exponentials


class Far(NamedTuple):
  """The keys that are read at a distance of `near` and more, by all queries of known positions."""

  near: int  # l
  keys: Int[np.ndarray, "_"] | None = None  # their positions; None: those at multiples of l, and then the own one too

  def worth(self, T: int, S: int) -> bool:
    """Whether the parts compute at most half of T × S."""
    _, columns, near = tiles.sides(T, S, 2 * self.near - 2)
    return near and 2 * (columns + (-(-S // self.near) if self.keys is None else len(self.keys))) <= S


def attend(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, far: Far) -> Array:
  """Softmax attention to the keys that `pattern` leaves nearer than `far.near`, and to the far ones."""
  if far.keys is None:
    return _strided(q, k, v, call, scale, pattern, far.near)
  return _summarised(q, k, v, call, scale, pattern, far)


def merged(one: Part, other: Part) -> Float[Array, "B T N V"]:
  """The values of both parts under one softmax; zeros for a query that reads nothing in either."""
  largest = jax.lax.stop_gradient(jnp.maximum(one[1], other[1]))
  largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
  weights = [jnp.swapaxes(jnp.exp(sums - largest), 1, 2)[..., None] for _, sums in (one, other)]
  total = weights[0] + weights[1]
  out = weights[0] * one[0] + weights[1] * other[0]
  return (out / jnp.where(total == 0.0, 1.0, total)).astype(one[0].dtype)


def _strided(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, stride: int) -> Array:
  """Positions that are equal modulo the stride become sequences of their own, more examples of a batch."""

  def reads(fixed: Any, i: Array, j: Array) -> Any:
    return pattern.reads(fixed, i, j) & (i != j)

  (B, T, N, _), S = q.shape, k.shape[1]
  near = call._replace(mask=call.mask & Mask(window=stride))
  one = forward.attend(q, k, v, near, scale, pattern=MaskPattern(reads, pattern.fixed))
  q, k, v = (_folded(array, stride) for array in (q, k, v))
  far = Call(_folded_mask(call.mask, B, (T, S), stride), bias=_folded_pairs(call.bias, B, (T, S), stride))
  out, sums = forward.attend(q, k, v, far, scale)
  M, V = out.shape[1], out.shape[3]
  out = jnp.swapaxes(out.reshape(B, stride, M, N, V), 1, 2).reshape(B, -1, N, V)[:, :T]
  sums = jnp.moveaxis(sums.reshape(B, stride, N, M), 1, 3).reshape(B, N, -1)[:, :, :T]
  return merged(one, (out, sums))


def _folded(array: Array, stride: int, batch: int | None = None) -> Array:
  """`B·l M …` from `B T …`: example b·l + r holds the positions r, r + l, r + 2l, …; zeros fill the last ones up."""
  array = padded(array, {1: array.shape[1] + -array.shape[1] % stride})
  array = jnp.swapaxes(array.reshape(len(array), -1, stride, *array.shape[2:]), 1, 2)
  array = array if batch is None else jnp.broadcast_to(array, (batch, *array.shape[1:]))
  return array.reshape(-1, *array.shape[2:])


def _folded_mask(mask: Mask, batch: int, lengths: tuple[int, int], stride: int) -> Mask:
  """The mask between positions that are equal modulo `stride`."""
  kv_valid, prefix = mask.kv_valid, mask.prefix
  if lengths[1] % stride and kv_valid is None:
    kv_valid = jnp.ones((1, lengths[1]), bool)
  tokens = {"q_valid": mask.q_valid, "kv_valid": kv_valid, "q_segments": mask.q_segments, "k_segments": mask.k_segments}
  if prefix is not None:
    first = jnp.arange(stride)[None]
    prefix = jnp.broadcast_to(-((first - prefix[:, None]) // stride), (batch, stride)).reshape(-1)
  return Mask(
    causal=mask.causal,
    window=mask.span and tuple(-(-bound // stride) for bound in mask.span),
    prefix=prefix,
    explicit=_folded_pairs(mask.explicit, batch, lengths, stride),
    **{name: None if array is None else _folded(array, stride, batch) for name, array in tokens.items()},
  )


def _folded_pairs(pairs: Any, batch: int, lengths: tuple[int, int], stride: int) -> Any:
  """`B·l #N #M #M` from `#B #N #T #S`."""
  if pairs is None:
    return None
  pairs = padded(pairs, {2 + a: length + -length % stride for a, length in enumerate(lengths)})
  sizes = [(length // stride, stride) if length > 1 else (1, 1) for length in pairs.shape[2:]]
  b, n, (rows, _), (columns, _) = *pairs.shape[:2], *sizes
  pairs = jnp.broadcast_to(pairs.reshape(b, n, *sizes[0], *sizes[1]), (b, n, rows, stride, columns, stride))
  alike = jnp.arange(stride)
  pairs = jnp.moveaxis(pairs[:, :, :, alike, :, alike], 0, 1)  # B l N M M
  return jnp.broadcast_to(pairs, (batch, *pairs.shape[1:])).reshape(-1, n, rows, columns)


def _summarised(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, far: Far) -> Array:
  """The summaries are taken out of the keys."""

  def reads(_: Any, i: Array, j: Array) -> Any:
    return abs(i - j) >= far.near

  def chosen(array: Any, axis: int) -> Any:
    return array if array is None or array.shape[axis] == 1 else jnp.take(array, far.keys, axis=axis)

  one = forward.attend(q, k, v, call._replace(mask=call.mask & Mask(window=far.near)), scale, pattern=pattern)
  own = {name: chosen(getattr(call.mask, name), axis) for name, axis in _OF_KEYS.items()}
  positions = Positions(k=jnp.asarray(far.keys)[None])
  call = Call(dataclasses.replace(call.mask, **own), positions, chosen(call.bias, 3))
  return merged(one, forward.attend(q, chosen(k, 1), chosen(v, 1), call, scale, pattern=MaskPattern(reads)))
