"""The pairs of a query and a key that a tile holds: where they stand, which may be read, what is added to them."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from attention_lab.attention.engines.flash.tiles import BlockMask
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


class Pairs(NamedTuple):
  """Arrays that broadcast against a tile's logits, whose last two axes are queries and keys or keys and queries."""

  i: Int[Array, "#C 1 _ _"]  # positions of the queries
  j: Int[Array, "#C 1 _ _"]  # positions of the keys
  per_head: Any  # the variant's own arrays for these heads, `1 N …`


ScoreMod = Callable[[Array, Pairs], Array]  # logits from scaled inner products, element by element
MaskMod = Callable[[Any, Array, Array], Any]  # which pairs at positions i and j may be read, from fixed arrays


class MaskPattern(NamedTuple):
  """What may be read besides the mask."""

  reads: MaskMod
  fixed: Any = ()  # the arrays that it finds its pairs with; they have no gradient
  cut: BlockMask | None = None  # the tiles that hold anything, where they are known for positions 0, 1, 2, …
  corners: Int[Array, "_ 2"] | None = None  # of the tiles that `cut` says are drawn


class Tile(NamedTuple):
  """First example, query head, query and key, and how many of each."""

  start: tuple[Any, Any, Any, Any]
  sizes: tuple[int, int, int, int]


def take(array: Any, start: tuple, sizes: tuple[int, ...]) -> Array:
  """A piece of an array; an axis of length 1 is the same for all."""
  first, size = _within(array, start, sizes)
  return array if size == array.shape else jax.lax.dynamic_slice(array, first, size)


def put(array: Array, part: Array, start: tuple, *, added: bool = False) -> Array:
  """The array with `part` in the place from where `take` would have it; added: on top of what is there."""
  first, size = _within(array, start, part.shape)
  if added:
    part = part + jax.lax.dynamic_slice(array, first, size)
  return jax.lax.dynamic_update_slice(array, part.astype(array.dtype), first)


def _within(array: Any, start: tuple, sizes: tuple[int, ...]) -> tuple[tuple, tuple[int, ...]]:
  shared = [length == 1 for length in array.shape]
  first = tuple(0 if one else begin for one, begin in zip(shared, start, strict=True))
  return first, tuple(1 if one else size for one, size in zip(shared, sizes, strict=True))


def padded(array: Any, lengths: dict[int, int], fill: int = 0) -> Any:
  """Every axis in `lengths` filled up to its length, but one of length 1, which is the same for all."""
  if array is None:
    return None
  widths = [(0, max(0, lengths.get(a, 0) - n) if n > 1 else 0) for a, n in enumerate(array.shape)]
  return jnp.pad(array, widths, constant_values=fill) if any(map(any, widths)) else array


def padded_mask(mask: Mask, T: int, S: int) -> Mask:
  """The mask's arrays for T queries and S keys; a query or key beyond the given ones may be anything."""
  queries, keys, pairs = {1: T}, {1: S}, {2: T, 3: S}
  wanted = {"q_valid": queries, "kv_valid": keys, "q_segments": queries, "k_segments": keys, "explicit": pairs}
  return dataclasses.replace(mask, **{name: padded(getattr(mask, name), axes) for name, axes in wanted.items()})


def places(positions: Positions, tile: Tile, S: int) -> tuple[Int[Array, "#C T"], Int[Array, "#C S"]]:
  """Positions of a tile's queries and keys; keys beyond the S that there are stand at −1."""
  _, _, rows, columns = tile.sizes
  t, s = (
    first + jnp.arange(size, dtype=jnp.int32)[None] for first, size in zip(tile.start[2:], (rows, columns), strict=True)
  )
  i = t if positions.q is None else _row(positions.q, tile, 2)
  j = s if positions.k is None else _row(positions.k, tile, 3)
  return i, j if S % columns == 0 else jnp.where(s < S, j, -1)


def readable(mask: Mask, i: Array, j: Array, tile: Tile) -> Bool[Array, "#C #N T S"]:
  """Which pairs of a tile the mask lets be read."""
  prefix = None if mask.prefix is None else take(mask.prefix, tile.start[:1], tile.sizes[:1])
  queries = (None if array is None else _row(array, tile, 2) for array in (mask.q_valid, mask.q_segments))
  keys = (None if array is None else _row(array, tile, 3) for array in (mask.kv_valid, mask.k_segments))
  (q_valid, q_segments), (kv_valid, k_segments) = queries, keys
  explicit = None if mask.explicit is None else take(mask.explicit, *tile)
  local = Mask(mask.causal, mask.window, prefix, q_valid, kv_valid, q_segments, k_segments, explicit)
  return local.dense(*tile.sizes[2:], Positions(q=i, k=j))


def banded(i: Array, j: Array, band: tuple[int, int], lengths: tuple[int, int]) -> Bool[Array, "1 1 _ _"]:
  """Which pairs lie in −right < i − j < left, for positions 0, 1, 2, … and (T, S) = `lengths`."""
  apart, (left, right), (T, S) = i - j, band, lengths
  parts = [apart > -right] if right < S else []
  parts += [apart < left] if left < T else []
  if S % j.size or not parts:
    parts.append(jnp.broadcast_to(j >= 0, apart.shape))
  return functools.reduce(operator.and_, parts)


def _row(array: Array, tile: Tile, axis: int) -> Array:
  """An array `#B T` or `#B S` of which the tile's examples and its queries (axis 2) or keys (axis 3) are wanted."""
  return take(array, (tile.start[0], tile.start[axis]), (tile.sizes[0], tile.sizes[axis]))
