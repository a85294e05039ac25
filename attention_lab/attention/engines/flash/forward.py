"""Softmax attention by tiles of the map, forward and backward; nothing of T × S is ever kept.

The forward pass goes over tiles in any order with a running maximum and sum for each query (Milakov and Gimelshein
2018, https://arxiv.org/abs/1805.02867) and keeps the logarithm of the sum. The backward pass, in `recomputed`, has the
weights of a tile again from it. Examples and heads are cut out of `B T N H` as they come, a few at a time, so that
temporaries are those of one tile and of one head.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention.base import Call, logits_dtype
from attention_lab.attention.engines.flash import backward as recomputed
from attention_lab.attention.engines.flash import tiles as tiling
from attention_lab.attention.engines.flash.block_mask import MaskPattern, ScoreMod, Tile, padded, padded_mask, put, take
from attention_lab.attention.engines.flash.common import (
  DiffArgs,
  FlashConfig,
  Group,
  NonDiffArgs,
  finisher,
  folded,
  group,
  hidden,
  over_groups,
  over_tiles,
  piece,
)
from attention_lab.attention.positions import Positions

FEW = 8  # queries of a key head, up to which keys stand first in products: as they lie in a cache, without a copy


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K V"],
  call: Call,
  scale: float,
  *,
  score: ScoreMod | None = None,
  per_head: Any = (),
  pattern: MaskPattern | None = None,
) -> tuple[Float[Array, "B T N V"], Float[Array, "B N T"]]:
  """Softmax-weighted values, and the logarithms of the sums of exponentials, −∞ for a query that reads nothing.

  score: makes logits of scaled inner products, element by element; the caller's bias is added to what it gives.
  per_head: arrays of leading axis N that it finds in `Pairs`. pattern: says which pairs may be read besides the mask,
  for positions that broadcast against each other.
  """
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  reads, fixed, cut, corners = pattern or (None, (), None, None)
  tiles = tiling.make(T, S, (B, K), N // K, call.mask, call.positions.known, reads is None, cut)
  Tw, Sw = T + -T % tiles.rows, S + -S % tiles.columns
  bias = padded(call.bias, {2: Tw, 3: Sw})
  operands = DiffArgs(padded(q, {1: Tw}), padded(k, {1: Sw}), padded(v, {1: Sw}), bias, per_head)
  positions = Positions(padded(call.positions.q, {1: Tw}), padded(call.positions.k, {1: Sw}, fill=-1))
  facts = NonDiffArgs(padded_mask(call.mask, Tw, Sw), positions, fixed, corners if tiles.drawn else None)
  leaves, tree = jax.tree.flatten(facts)
  out, sums = _attend(FlashConfig(tiles, (T, S), scale, score, reads, tree), operands, leaves)
  return out[:, :T], sums[:, :, :T]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(form: FlashConfig, operands: DiffArgs, facts: list[Array]) -> tuple[Array, Array]:
  return _forward(form, operands, facts)[0]


def _forward(form: FlashConfig, operands: DiffArgs, leaves: list[Array]) -> tuple[tuple[Array, Array], tuple]:
  """Results, and what the backward pass needs of them."""
  (B, T, N, _), V = operands.q.shape, operands.v.shape[-1]
  facts, dtype = jax.tree.unflatten(form.facts, leaves), logits_dtype(operands.q, operands.k)

  def one(results: tuple[Array, Array], start: tuple) -> tuple[Array, Array]:
    out, sums = _attend_group(form, group(form, operands, start), operands.bias, facts)
    return put(results[0], out, (start[0], 0, start[1], 0)), put(results[1], sums, (*start, 0))

  empty = jnp.zeros((B, T, N, V), operands.v.dtype), jnp.zeros((B, N, T), dtype)
  results = over_groups(form, operands, one, empty)
  return results, (operands, leaves, *results)


def _attend_group(form: FlashConfig, group: Group, bias: Array | None, facts: NonDiffArgs) -> tuple[Array, Array]:
  """Out `C T N V` and sums `C N T` of a group."""
  (C, T, N, _), V, dtype = group.q.shape, group.v.shape[-1], logits_dtype(group.q, group.k)
  once = form.tiling.once

  def step(tiles: tiling.Pass, carry: tuple, corner: tuple) -> tuple:
    tile = Tile((*group.start, *corner), (C, N, tiles.rows, tiles.columns))
    weighed = _tile(form, group, bias, facts, tile, tiles)
    t = corner[0]
    if once:
      out, sums = _normalised(*weighed)
      return put(carry[0], jnp.swapaxes(out, 1, 2), (0, t, 0, 0)), put(carry[1], sums, (0, 0, t))
    largest, total, out = carry
    before = (take(a, (0, 0, t), (C, N, tiles.rows)) for a in (largest, total))
    merged = _merged((*before, piece(out, t, tiles.rows)), weighed)
    largest, total = (put(a, part, (0, 0, t)) for a, part in zip((largest, total), merged, strict=False))
    return largest, total, put(out, jnp.swapaxes(merged[2], 1, 2), (0, t, 0, 0))

  rows = jnp.zeros((C, N, T), dtype)
  carry: tuple = (jnp.zeros((C, T, N, V), group.v.dtype), rows)
  if not once:
    carry = (rows - jnp.inf, rows, jnp.zeros((C, T, N, V), dtype))
  carry = over_tiles(form, facts, step, carry)
  if once:
    return carry
  out, sums = _normalised(carry[0], carry[1], jnp.swapaxes(carry[2], 1, 2))
  return jnp.swapaxes(out, 1, 2), sums


def _tile(
  form: FlashConfig, group: Group, bias: Array | None, facts: NonDiffArgs, tile: Tile, tiles: tiling.Pass
) -> tuple:
  """Largest logits `C N t`, sums of exponentials less these, and values weighted by them `C N t V`."""
  (_, _, t, s), (C, N, rows, columns) = tile
  K, dtype = group.k.shape[2], logits_dtype(group.q, group.k)
  q, k, v = piece(group.q, t, rows), piece(group.k, s, columns), piece(group.v, s, columns)
  q = (q * form.scale if folded(group) else q).reshape(C, K, N // K, rows, -1)
  if rows * N // K <= FEW:
    dots = jnp.moveaxis(jnp.einsum("cksh,ckgth->cksgt", k, q, preferred_element_type=dtype), 2, 4)
  else:
    dots = jnp.einsum("ckgth,cksh->ckgts", q, k, preferred_element_type=dtype)
  dots = dots.reshape(C, N, rows, columns)
  finish, mask = finisher(form, group, facts, tile, tiles)
  logits = hidden(finish(dots, None if bias is None else take(bias, *tile), group.per_head), mask)
  largest = jnp.max(logits, axis=-1)
  weights = jnp.exp(logits - _finite(largest)[..., None])
  grouped = weights.reshape(C, K, N // K, rows, columns).astype(v.dtype)
  out = jnp.einsum("ckgts,cksv->ckgtv", grouped, v, preferred_element_type=dtype)
  return largest, jnp.sum(weights, axis=-1), out.reshape(C, N, rows, -1)


def _merged(before: tuple, now: tuple) -> tuple:
  """Two parts of a row as one."""
  largest = jnp.maximum(before[0], now[0])
  a, b = (jnp.exp(part[0] - _finite(largest)) for part in (before, now))
  return largest, a * before[1] + b * now[1], a[..., None] * before[2] + b[..., None] * now[2]


def _normalised(largest: Array, total: Array, out: Array) -> tuple[Array, Array]:
  """Out `C N T V` and logarithms of sums; a row without keys is zeros and −∞."""
  return out / jnp.where(total == 0.0, 1.0, total)[..., None], largest + jnp.log(total)


def _finite(largest: Array) -> Array:
  return jnp.where(jnp.isfinite(largest), largest, 0.0)


def _backward(form: FlashConfig, kept: tuple, gradients: tuple[Array, Array]) -> tuple[DiffArgs, None]:
  return recomputed.backward(form, kept, gradients), None


_attend.defvjp(_forward, _backward)
