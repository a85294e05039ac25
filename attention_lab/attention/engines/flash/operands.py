"""The shared parts of the forward and the backward pass: arguments, loops over groups and tiles, a tile's logits.

A group is the examples and heads that are computed at a time; within it one tile after the other.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.flash.block_mask import (
  MaskMod,
  Pairs,
  ScoreMod,
  Tile,
  band_mask,
  slice_block,
  tile_mask,
  tile_positions,
)
from attention_lab.attention.engines.flash.tiles import TilePass, Tiling
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


class FlashConfig(NamedTuple):
  """The static part of a call, known while tracing."""

  tiling: Tiling
  lengths: tuple[int, int]  # T and S, without the padding of the last tiles
  scale: float
  score_mod: ScoreMod | None
  mask_mod: MaskMod | None
  treedef: Any  # of `NonDiffArgs`, which pass through `custom_vjp` as a list of leaves


class DiffArgs(NamedTuple):
  """The arguments that have a gradient; T and S are padded to whole tiles."""

  q: Float[Array, "B T N H"]
  k: Float[Array, "B S K H"]
  v: Float[Array, "B S K V"]
  bias: Float[Array, "#B #N #T #S"] | None
  per_head: Any  # arrays `N …`, for the score_mod


class NonDiffArgs(NamedTuple):
  """The arguments without a gradient."""

  mask: Mask
  positions: Positions
  mask_args: Any  # arrays for `FlashConfig.mask_mod`
  dynamic_starts: Int[Array, "_ 2"] | None  # of the tiles that are known at run time
  bias_shift: Float[Array, "B N T 1"] | None = None  # each row's largest bias, taken off


class Group(NamedTuple):
  """The arguments of C examples and N query heads that are computed at a time."""

  start: tuple[Any, Any]  # first example and query head
  q: Float[Array, "C T N H"]
  k: Float[Array, "C S K H"]
  v: Float[Array, "C S K V"]
  per_head: Any  # `1 N …`


def over_groups(config: FlashConfig, args: DiffArgs, step: Callable, carry: Any) -> Any:
  """The carry after `step(carry, (first example, first query head))` for all groups."""
  (B, _, N, _), K, tiling = args.q.shape, args.k.shape[2], config.tiling
  starts = [(b, n) for b in range(0, B, tiling.batch_block) for n in range(0, N, tiling.kv_heads * N // K)]
  return _loop(starts, step, carry)


def over_tiles(config: FlashConfig, non_diff: NonDiffArgs, step: Callable, carry: Any) -> Any:
  """The carry after `step(tile pass, carry, (first query, first key))` for all tiles."""
  for tiles in config.tiling.passes:
    starts = non_diff.dynamic_starts if tiles.starts is None else tiles.starts
    carry = _loop(starts, functools.partial(step, tiles), carry)
  return carry


def _loop(starts: Any, step: Callable, carry: Any) -> Any:
  """The carry after `step(carry, start)` for all starts; a single start needs no loop."""
  if len(starts) == 1:
    return step(carry, tuple(starts[0]))
  starts = starts if isinstance(starts, jax.Array) else np.asarray(starts, np.int32)
  return jax.lax.scan(lambda carry, start: (step(carry, tuple(start)), None), carry, starts)[0]


def slice_group(config: FlashConfig, args: DiffArgs, start: tuple) -> Group:
  """The group that starts at (first example, first query head)."""
  (b, n), (N, K), tiling = start, (args.q.shape[2], args.k.shape[2]), config.tiling

  def cut(array: Array, first: Any, heads: int) -> Array:
    return slice_block(array, (b, 0, first, 0), (tiling.batch_block, array.shape[1], heads, array.shape[3]))

  heads, kv_head = tiling.kv_heads * N // K, n * K // N
  per_head = jax.tree.map(
    lambda leaf: slice_block(leaf, (n,) + (0,) * (leaf.ndim - 1), (heads, *leaf.shape[1:]))[None], args.per_head
  )
  keys, values = (cut(array, kv_head, tiling.kv_heads) for array in (args.k, args.v))
  return Group(start, cut(args.q, n, heads), keys, values, per_head)


def slice_seq(array: Array, first: Any, size: int) -> Array:
  """`size` tokens of `C T N H`, heads in front: `C N size H`."""
  return jnp.swapaxes(jax.lax.dynamic_slice_in_dim(array, first, size, axis=1), 1, 2)


def scale_in_q(group: Group) -> bool:
  """Whether the scale is multiplied into the queries: not where they are rounded more coarsely than logits."""
  return group.q.dtype == logits_dtype(group.q)


def make_logits_fn(
  config: FlashConfig, group: Group, non_diff: NonDiffArgs, tile: Tile, tiles: TilePass, keys_first: bool = False
) -> tuple[Callable, Array | None]:
  """A tile's `logits(dots, bias, per_head)` from its inner products, and its mask; None where all is readable.

  keys_first: the last two axes of `dots`, of the logits and of the mask are keys and queries.
  """

  def turned(array: Array) -> Array:
    return jnp.swapaxes(array, -1, -2) if keys_first else array

  shift = 0.0 if non_diff.bias_shift is None else slice_block(non_diff.bias_shift, *tile)

  def logits_fn(dots: Array, bias: Array | None, per_head: Any) -> Array:
    logits = dots if scale_in_q(group) else dots * config.scale
    if config.score_mod is not None:
      logits = config.score_mod(logits, Pairs(i, j, per_head))
    return logits if bias is None else logits + turned(bias.astype(logits.dtype) - shift)

  queries, keys = tile_positions(non_diff.positions, tile, config.lengths[1])
  i, j = turned(queries[:, None, :, None]), turned(keys[:, None, None, :])
  if not tiles.masked:
    return logits_fn, None
  band = config.tiling.band
  mask = band_mask(i, j, band, config.lengths) if band else turned(tile_mask(non_diff.mask, queries, keys, tile))
  if config.mask_mod is not None:
    mask &= config.mask_mod(non_diff.mask_args, i, j)
  return logits_fn, mask & (j >= 0) if tiles.starts is None else mask


def apply_mask(logits: Array, mask: Array | None) -> Array:
  """Logits with −∞ where the mask is False."""
  return logits if mask is None else jnp.where(mask, logits, -jnp.inf)


def finite_max(row_max: Array) -> Array:
  """Row maxima of logits, 0 for a row without keys, whose maximum is −∞."""
  return jnp.where(jnp.isfinite(row_max), row_max, 0.0)
