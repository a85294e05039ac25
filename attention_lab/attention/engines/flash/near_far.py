"""Patterns of near keys and a few far ones: two disjoint maps by the flash engine, merged by their lse.

A pattern such as a window and every l-th key leaves no tile empty. Its window is one map, by tiles; the far keys are
brought together and are another, dense one. The positions of queries and keys are 0, 1, 2, … in all of them.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import Call
from attention_lab.attention.engines.flash import forward, tiles
from attention_lab.attention.engines.flash.block_mask import MaskPattern, pad_axes
from attention_lab.attention.engines.flash.operands import finite_max
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions

_KEY_AXES = {"kv_valid": 1, "k_segments": 1, "explicit": 3}  # axis of the keys in the arrays of a mask that have one

Partial = tuple[Float[Array, "B T N V"], Float[Array, "B N T"]]  # (out, lse) of a part of the keys


class FarKeys(NamedTuple):
  """The keys that all queries read at a distance of `distance` and more."""

  distance: int  # l, in positions: nearer keys are read as the pattern says
  positions: Int[np.ndarray, "_"] | None = None  # None: keys at multiples of l from the query, itself among them

  def saves_work(self, T: int, S: int) -> bool:
    """Whether both parts compute at most half of T × S."""
    _, columns, windowed = tiles.tile_sizes(T, S, 2 * self.distance - 2)
    far = -(-S // self.distance) if self.positions is None else len(self.positions)
    return windowed and 2 * (columns + far) <= S


def attend(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, far: FarKeys) -> Array:
  """Softmax attention to the keys of `pattern` nearer than `far.distance`, and to the far keys: out `B T N V`."""
  if call.bias is not None:  # the parts are merged by their lse, which a common shift keeps small
    call = call._replace(bias=call.bias - forward.bias_shift(q, k, v, call, pattern).astype(call.bias.dtype))
  if far.positions is None:
    return _attend_strided(q, k, v, call, scale, pattern, far.distance)
  return _attend_listed(q, k, v, call, scale, pattern, far)


def merge(near: Partial, far: Partial) -> Float[Array, "B T N V"]:
  """The values of both parts under one softmax; zeros for a query that reads nothing in either."""
  largest = finite_max(jax.lax.stop_gradient(jnp.maximum(near[1], far[1])))
  weights = [jnp.swapaxes(jnp.exp(lse - largest), 1, 2)[..., None] for _, lse in (near, far)]
  total = weights[0] + weights[1]
  out = weights[0] * near[0] + weights[1] * far[0]
  return (out / jnp.where(total == 0.0, 1.0, total)).astype(near[0].dtype)


def _attend_strided(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, stride: int) -> Array:
  """Far keys at multiples of the stride: positions equal modulo the stride are folded into examples of the batch."""

  def mask_mod(mask_args: Any, i: Array, j: Array) -> Any:
    return pattern.mask_mod(mask_args, i, j) & (i != j)

  (B, T, N, _), S = q.shape, k.shape[1]
  window = call._replace(mask=call.mask & Mask(window=stride))
  near = forward.attend(q, k, v, window, scale, pattern=MaskPattern(mask_mod, pattern.mask_args))
  q, k, v = (_fold(array, stride) for array in (q, k, v))
  folded = Call(_fold_mask(call.mask, B, (T, S), stride), bias=_fold_pairs(call.bias, B, (T, S), stride))
  out, lse = forward.attend(q, k, v, folded, scale)
  M, V = out.shape[1], out.shape[3]
  out = jnp.swapaxes(out.reshape(B, stride, M, N, V), 1, 2).reshape(B, -1, N, V)[:, :T]
  lse = jnp.moveaxis(lse.reshape(B, stride, N, M), 1, 3).reshape(B, N, -1)[:, :, :T]
  return merge(near, (out, lse))


def _fold(array: Array, stride: int, batch: int | None = None) -> Array:
  """`B·l M …` from `B T …` for l = `stride`: example b·l + r holds the positions r, r + l, …, padded with zeros."""
  array = pad_axes(array, {1: array.shape[1] + -array.shape[1] % stride})
  array = jnp.swapaxes(array.reshape(len(array), -1, stride, *array.shape[2:]), 1, 2)
  array = array if batch is None else jnp.broadcast_to(array, (batch, *array.shape[1:]))
  return array.reshape(-1, *array.shape[2:])


def _fold_mask(mask: Mask, batch: int, lengths: tuple[int, int], stride: int) -> Mask:
  """The mask between positions equal modulo `stride`, for folded queries and keys."""
  kv_valid, prefix = mask.kv_valid, mask.prefix
  if lengths[1] % stride and kv_valid is None:
    kv_valid = jnp.ones((1, lengths[1]), bool)
  tokens = {"q_valid": mask.q_valid, "kv_valid": kv_valid, "q_segments": mask.q_segments, "k_segments": mask.k_segments}
  if prefix is not None:
    first = jnp.arange(stride)[None]
    prefix = jnp.broadcast_to(-((first - prefix[:, None]) // stride), (batch, stride)).reshape(-1)
  return Mask(
    causal=mask.causal,
    window=None if mask.span is None else (-(-mask.span[0] // stride), -(-mask.span[1] // stride)),
    prefix=prefix,
    explicit=_fold_pairs(mask.explicit, batch, lengths, stride),
    **{name: None if array is None else _fold(array, stride, batch) for name, array in tokens.items()},
  )


def _fold_pairs(pairs: Any, batch: int, lengths: tuple[int, int], stride: int) -> Any:
  """An array of pairs `B·l #N #M #M` between positions equal modulo `stride`, from `#B #N #T #S`."""
  if pairs is None:
    return None
  pairs = pad_axes(pairs, {2 + a: length + -length % stride for a, length in enumerate(lengths)})
  sizes = [(length // stride, stride) if length > 1 else (1, 1) for length in pairs.shape[2:]]
  (b, n), (rows, columns) = pairs.shape[:2], (size[0] for size in sizes)
  pairs = jnp.broadcast_to(pairs.reshape(b, n, *sizes[0], *sizes[1]), (b, n, rows, stride, columns, stride))
  remainder = jnp.arange(stride)
  pairs = jnp.moveaxis(pairs[:, :, :, remainder, :, remainder], 0, 1)  # B l N M M
  return jnp.broadcast_to(pairs, (batch, *pairs.shape[1:])).reshape(-1, n, rows, columns)


def _attend_listed(q: Any, k: Any, v: Any, call: Call, scale: float, pattern: MaskPattern, far: FarKeys) -> Array:
  """Far keys at listed positions: they are taken out of the keys, to be a short sequence of keys of their own."""

  def mask_mod(_: Any, i: Array, j: Array) -> Any:
    return abs(i - j) >= far.distance

  def select(array: Any, axis: int) -> Any:
    return array if array is None or array.shape[axis] == 1 else jnp.take(array, np.asarray(far.positions), axis=axis)

  window = call._replace(mask=call.mask & Mask(window=far.distance))
  near = forward.attend(q, k, v, window, scale, pattern=pattern)
  masks = {name: select(getattr(call.mask, name), axis) for name, axis in _KEY_AXES.items()}
  positions = Positions(k=jnp.asarray(far.positions)[None])
  listed = Call(dataclasses.replace(call.mask, **masks), positions, select(call.bias, 3))
  return merge(near, forward.attend(q, select(k, 1), select(v, 1), listed, scale, pattern=MaskPattern(mask_mod)))
