"""Softmax attention by tiles of the map, forward and backward; nothing of T × S is ever kept.

The forward pass is FlashAttention's: tiles in any order, with a running maximum and sum for each query (online softmax,
Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867), and the lse, the log-sum-exp of each row, kept for the
backward pass in `backward`. Examples and heads are cut out of `B T N H` as they come, a few at a time, so that
temporaries are those of one tile and of one head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention.base import Call, logits_dtype
from attention_lab.attention.engines.flash import backward
from attention_lab.attention.engines.flash.block_mask import (
  MaskPattern,
  ScoreMod,
  Tile,
  pad_axes,
  pad_mask,
  slice_block,
  update_block,
)
from attention_lab.attention.engines.flash.operands import (
  DiffArgs,
  FlashConfig,
  Group,
  NonDiffArgs,
  apply_mask,
  finite_max,
  make_logits_fn,
  over_groups,
  over_tiles,
  scale_in_q,
  slice_group,
  slice_seq,
)
from attention_lab.attention.engines.flash.tiles import TilePass, make_tiling
from attention_lab.attention.positions import Positions

KEYS_FIRST_MAX = 8  # queries of a key head up to which products take keys first: as a cache holds them, without a copy


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K V"],
  call: Call,
  scale: float,
  *,
  score_mod: ScoreMod | None = None,
  per_head: Any = (),
  pattern: MaskPattern | None = None,
) -> tuple[Float[Array, "B T N V"], Float[Array, "B N T"]]:
  """Softmax attention, and its lse.

  Args:
    q: queries.
    k: keys.
    v: values.
    call: mask, positions and bias.
    scale: factor of the inner products.
    score_mod: makes logits of scaled inner products, element by element; the caller's bias is added to its result.
    per_head: arrays of leading axis N that `score_mod` finds in `Pairs`.
    pattern: which pairs are readable beside the mask, for positions that broadcast against each other.

  Returns:
    The softmax-weighted values, zeros for a query that reads nothing; and the lse, the logarithms of the sums of
    exponentials, −∞ for a query that reads nothing.
  """
  T, (config, args, non_diff) = q.shape[1], _prepare(q, k, v, call, scale, score_mod, per_head, pattern)
  shift = None if call.bias is None else _bias_shift(config, args, non_diff)
  leaves, treedef = jax.tree.flatten(non_diff._replace(bias_shift=shift))
  out, lse = _attend(config._replace(treedef=treedef), args, leaves)
  lse = lse if shift is None else lse + shift[..., 0]
  return out[:, :T], lse[:, :, :T]


def bias_shift(q: Array, k: Array, v: Array, call: Call, pattern: MaskPattern) -> Float[Array, "B N T 1"]:
  """Each row's largest bias over the keys that the mask and the pattern leave readable: a constant to its softmax."""
  return _bias_shift(*_prepare(q, k, v, call, 1.0, None, (), pattern))[:, :, : q.shape[1]]


def _prepare(
  q: Array, k: Array, v: Array, call: Call, scale: float, score_mod: ScoreMod | None, per_head: Any, pattern: Any
) -> tuple[FlashConfig, DiffArgs, NonDiffArgs]:
  """The arguments of a call, padded to whole tiles; the treedef of the configuration is missing."""
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  mask_mod, mask_args, block_mask, starts = pattern or (None, (), None, None)
  tiling = make_tiling(T, S, (B, K), N // K, call.mask, call.positions.known, mask_mod is None, block_mask)
  Tp, Sp = T + -T % tiling.rows, S + -S % tiling.columns
  bias = pad_axes(call.bias, {2: Tp, 3: Sp})
  args = DiffArgs(pad_axes(q, {1: Tp}), pad_axes(k, {1: Sp}), pad_axes(v, {1: Sp}), bias, per_head)
  positions = Positions(pad_axes(call.positions.q, {1: Tp}), pad_axes(call.positions.k, {1: Sp}, fill=-1))
  non_diff = NonDiffArgs(pad_mask(call.mask, Tp, Sp), positions, mask_args, starts if tiling.dynamic else None)
  return FlashConfig(tiling, (T, S), scale, score_mod, mask_mod, None), args, non_diff


def _bias_shift(config: FlashConfig, args: DiffArgs, non_diff: NonDiffArgs) -> Array:
  """`bias_shift` of padded arguments, tile by tile."""
  (B, T, N, _), bias = args.q.shape, jax.lax.stop_gradient(args.bias)

  def step(shift: Array, start: tuple) -> Array:
    group = slice_group(config, args, start)

    def tile_step(tiles: TilePass, shift: Array, first: tuple) -> Array:
      tile = Tile((*start, *first), (len(group.q), group.q.shape[2], tiles.rows, tiles.columns))
      mask = make_logits_fn(config, group, non_diff, tile, tiles)[1]
      largest = jnp.max(apply_mask(slice_block(bias, *tile), mask), axis=-1, keepdims=True).astype(shift.dtype)
      before = slice_block(shift, (*tile.start[:3], 0), (*tile.sizes[:3], 1))
      return update_block(shift, jnp.maximum(before, largest), (*tile.start[:3], 0))

    return over_tiles(config, non_diff, tile_step, shift)

  empty = jnp.full((B, N, T, 1), -jnp.inf, logits_dtype(args.q, args.k))
  return finite_max(over_groups(config, args, step, empty))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(config: FlashConfig, args: DiffArgs, leaves: list[Array]) -> tuple[Array, Array]:
  return _forward(config, args, leaves)[0]


def _forward(config: FlashConfig, args: DiffArgs, leaves: list[Array]) -> tuple[tuple[Array, Array], tuple]:
  """(out, lse), and the residuals of the backward pass."""
  (B, T, N, _), V = args.q.shape, args.v.shape[-1]
  non_diff, dtype = jax.tree.unflatten(config.treedef, leaves), logits_dtype(args.q, args.k)

  def step(results: tuple[Array, Array], start: tuple) -> tuple[Array, Array]:
    out, lse = _attend_group(config, slice_group(config, args, start), args.bias, non_diff)
    return update_block(results[0], out, (start[0], 0, start[1], 0)), update_block(results[1], lse, (*start, 0))

  empty = jnp.zeros((B, T, N, V), args.v.dtype), jnp.zeros((B, N, T), dtype)
  results = over_groups(config, args, step, empty)
  return results, (args, leaves, *results)


def _attend_group(config: FlashConfig, group: Group, bias: Array | None, non_diff: NonDiffArgs) -> tuple[Array, Array]:
  """Out `C T N V` and lse `C N T` of a group."""
  (C, T, N, _), V, dtype = group.q.shape, group.v.shape[-1], logits_dtype(group.q, group.k)
  rows_once = config.tiling.rows_once

  def step(tiles: TilePass, carry: tuple, start: tuple) -> tuple:
    tile = Tile((*group.start, *start), (C, N, tiles.rows, tiles.columns))
    partial = _attend_tile(config, group, bias, non_diff, tile, tiles)
    t = start[0]
    if rows_once:
      out, lse = _normalised(*partial)
      return update_block(carry[0], jnp.swapaxes(out, 1, 2), (0, t, 0, 0)), update_block(carry[1], lse, (0, 0, t))
    row_max, row_sum, out = carry
    before = (slice_block(a, (0, 0, t), (C, N, tiles.rows)) for a in (row_max, row_sum))
    merged = _merge((*before, slice_seq(out, t, tiles.rows)), partial)
    row_max, row_sum = (update_block(a, block, (0, 0, t)) for a, block in zip((row_max, row_sum), merged, strict=False))
    return row_max, row_sum, update_block(out, jnp.swapaxes(merged[2], 1, 2), (0, t, 0, 0))

  rows = jnp.zeros((C, N, T), dtype)
  carry: tuple = (jnp.zeros((C, T, N, V), group.v.dtype), rows)
  if not rows_once:
    carry = (rows - jnp.inf, rows, jnp.zeros((C, T, N, V), dtype))
  carry = over_tiles(config, non_diff, step, carry)
  if rows_once:
    return carry
  out, lse = _normalised(carry[0], carry[1], jnp.swapaxes(carry[2], 1, 2))
  return jnp.swapaxes(out, 1, 2), lse


def _attend_tile(
  config: FlashConfig, group: Group, bias: Array | None, non_diff: NonDiffArgs, tile: Tile, tiles: TilePass
) -> tuple:
  """Row maxima of the logits `C N t`, sums of exponentials less these, and values weighted by them `C N t V`."""
  (_, _, t, s), (C, N, rows, columns) = tile
  K, dtype = group.k.shape[2], logits_dtype(group.q, group.k)
  q, k, v = slice_seq(group.q, t, rows), slice_seq(group.k, s, columns), slice_seq(group.v, s, columns)
  q = (q * config.scale if scale_in_q(group) else q).reshape(C, K, N // K, rows, -1)
  if rows * N // K <= KEYS_FIRST_MAX:
    dots = jnp.moveaxis(jnp.einsum("cksh,ckgth->cksgt", k, q, preferred_element_type=dtype), 2, 4)
  else:
    dots = jnp.einsum("ckgth,cksh->ckgts", q, k, preferred_element_type=dtype)
  dots = dots.reshape(C, N, rows, columns)
  logits_fn, mask = make_logits_fn(config, group, non_diff, tile, tiles)
  logits = apply_mask(logits_fn(dots, None if bias is None else slice_block(bias, *tile), group.per_head), mask)
  row_max = jnp.max(logits, axis=-1)
  weights = jnp.exp(logits - finite_max(row_max)[..., None])
  grouped = weights.reshape(C, K, N // K, rows, columns).astype(v.dtype)
  out = jnp.einsum("ckgts,cksv->ckgtv", grouped, v, preferred_element_type=dtype)
  return row_max, jnp.sum(weights, axis=-1), out.reshape(C, N, rows, -1)


def _merge(before: tuple, now: tuple) -> tuple:
  """The online softmax: (row maximum, row sum, out) of two parts of a row as those of one."""
  row_max = jnp.maximum(before[0], now[0])
  a, b = (jnp.exp(part[0] - finite_max(row_max)) for part in (before, now))
  return row_max, a * before[1] + b * now[1], a[..., None] * before[2] + b[..., None] * now[2]


def _normalised(row_max: Array, row_sum: Array, out: Array) -> tuple[Array, Array]:
  """Out `C N T V` and lse; a row without keys is zeros and −∞."""
  return out / jnp.where(row_sum == 0.0, 1.0, row_sum)[..., None], row_max + jnp.log(row_sum)


def _backward(config: FlashConfig, residuals: tuple, gradients: tuple[Array, Array]) -> tuple[DiffArgs, None]:
  return backward.backward(config, residuals, gradients), None


_attend.defvjp(_forward, _backward)
