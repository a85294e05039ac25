"""The masks of one tile: positions of its queries and keys, and which of its pairs are readable.

`score_mod` and `mask_mod` are FlexAttention's, on arrays of positions; a `MaskPattern` adds the block mask that says
which tiles are computed at all.
"""

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
  """A tile's pairs: arrays that broadcast against its logits, whose last axes are queries and keys, in either order."""

  i: Int[Array, "#C 1 _ _"]  # positions of the queries
  j: Int[Array, "#C 1 _ _"]  # positions of the keys
  per_head: Any  # the variant's arrays for these heads, `1 N …`


ScoreMod = Callable[[Array, Pairs], Array]  # logits from scaled inner products, element by element
MaskMod = Callable[[Any, Array, Array], Any]  # (mask_args, i, j) -> which pairs at positions i and j are readable


class MaskPattern(NamedTuple):
  """A variant's pattern: which pairs are readable, beside the caller's mask."""

  mask_mod: MaskMod
  mask_args: Any = ()  # arrays for `mask_mod`, without gradients
  block_mask: BlockMask | None = None  # its tiles, where they are known for positions 0, 1, 2, …
  dynamic_starts: Int[Array, "_ 2"] | None = None  # starts of the dynamic tiles of `block_mask`


class Tile(NamedTuple):
  """A tile's first example, query head, query and key, and how many of each."""

  start: tuple[Any, Any, Any, Any]
  sizes: tuple[int, int, int, int]


def slice_block(array: Any, start: tuple, sizes: tuple[int, ...]) -> Array:
  """The block of an array that starts at `start`; an axis of length 1 is the same for all and stays."""
  first, size = _broadcast_block(array, start, sizes)
  return array if size == array.shape else jax.lax.dynamic_slice(array, first, size)


def update_block(array: Array, block: Array, start: tuple, *, add: bool = False) -> Array:
  """The array with `block` where `slice_block` would find it, or with `block` added there."""
  first, size = _broadcast_block(array, start, block.shape)
  if add:
    block = block + jax.lax.dynamic_slice(array, first, size)
  return jax.lax.dynamic_update_slice(array, block.astype(array.dtype), first)


def _broadcast_block(array: Any, start: tuple, sizes: tuple[int, ...]) -> tuple[tuple, tuple[int, ...]]:
  """Start and sizes of a block, 0 and 1 along axes of length 1."""
  shared = [length == 1 for length in array.shape]
  first = tuple(0 if same else begin for same, begin in zip(shared, start, strict=True))
  return first, tuple(1 if same else size for same, size in zip(shared, sizes, strict=True))


def pad_axes(array: Any, lengths: dict[int, int], fill: int = 0) -> Any:
  """The array padded to `lengths` (axis -> length), except along axes of length 1, which are the same for all."""
  if array is None:
    return None
  widths = [(0, max(0, lengths.get(a, 0) - n) if n > 1 else 0) for a, n in enumerate(array.shape)]
  return jnp.pad(array, widths, constant_values=fill) if any(map(any, widths)) else array


def pad_mask(mask: Mask, T: int, S: int) -> Mask:
  """The mask with arrays for T queries and S keys; the padding may be anything."""
  queries, keys, pairs = {1: T}, {1: S}, {2: T, 3: S}
  axes = {"q_valid": queries, "kv_valid": keys, "q_segments": queries, "k_segments": keys, "explicit": pairs}
  return dataclasses.replace(mask, **{name: pad_axes(getattr(mask, name), lengths) for name, lengths in axes.items()})


def tile_positions(positions: Positions, tile: Tile, S: int) -> tuple[Int[Array, "#C T"], Int[Array, "#C S"]]:
  """Positions of a tile's queries and keys; keys from index S on, which are padding, stand at −1."""
  _, _, rows, columns = tile.sizes
  t, s = (
    first + jnp.arange(size, dtype=jnp.int32)[None] for first, size in zip(tile.start[2:], (rows, columns), strict=True)
  )
  i = t if positions.q is None else _slice_tokens(positions.q, tile, 2)
  j = s if positions.k is None else _slice_tokens(positions.k, tile, 3)
  return i, j if S % columns == 0 else jnp.where(s < S, j, -1)


def tile_mask(mask: Mask, i: Array, j: Array, tile: Tile) -> Bool[Array, "#C #N T S"]:
  """The pairs of a tile that the caller's mask leaves readable."""
  prefix = None if mask.prefix is None else slice_block(mask.prefix, tile.start[:1], tile.sizes[:1])
  queries = (None if array is None else _slice_tokens(array, tile, 2) for array in (mask.q_valid, mask.q_segments))
  keys = (None if array is None else _slice_tokens(array, tile, 3) for array in (mask.kv_valid, mask.k_segments))
  (q_valid, q_segments), (kv_valid, k_segments) = queries, keys
  explicit = None if mask.explicit is None else slice_block(mask.explicit, *tile)
  local = Mask(mask.causal, mask.window, prefix, q_valid, kv_valid, q_segments, k_segments, explicit)
  return local.dense(*tile.sizes[2:], Positions(q=i, k=j))


def band_mask(i: Array, j: Array, band: tuple[int, int], lengths: tuple[int, int]) -> Bool[Array, "1 1 _ _"]:
  """The pairs −right < i − j < left of (left, right) = `band`, for positions 0, 1, 2, … and (T, S) = `lengths`."""
  apart, (left, right), (T, S) = i - j, band, lengths
  parts = [apart > -right] if right < S else []
  parts += [apart < left] if left < T else []
  if S % j.size or not parts:
    parts.append(jnp.broadcast_to(j >= 0, apart.shape))
  return functools.reduce(operator.and_, parts)


def _slice_tokens(array: Array, tile: Tile, axis: int) -> Array:
  """The part of an array `#B T` or `#B S` for a tile's examples and its queries (axis 2) or keys (axis 3)."""
  return slice_block(array, (tile.start[0], tile.start[axis]), (tile.sizes[0], tile.sizes[axis]))
