"""The backward pass of softmax attention by tiles: weights are computed again from the lse.

Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithm 4, with keys before queries in a tile, so that no product
contracts over the leading axis of a large operand, which costs a CPU two to four times as much.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attention_lab.attention.engines.flash.block_mask import Tile, slice_block, update_block
from attention_lab.attention.engines.flash.operands import (
  DiffArgs,
  FlashConfig,
  Group,
  NonDiffArgs,
  apply_mask,
  make_logits_fn,
  over_groups,
  over_tiles,
  scale_in_q,
  slice_group,
  slice_seq,
)
from attention_lab.attention.engines.flash.tiles import TilePass


class _Rows(NamedTuple):
  """The arrays of a group that belong to its queries."""

  q: Array  # C T N H
  d_out: Array  # C T N V
  lse: Array  # C N T, +∞ for a query that reads nothing
  delta: Array  # C N T: Σ_v d_out·out − d_lse, subtracted from a weight's gradient (D in the paper)


class _Grads(NamedTuple):
  """Gradients as they add up over a group's tiles."""

  q: Array  # C N H T
  k: Array  # C S K H
  v: Array  # C S K V
  bias: Array | None  # of all groups
  per_head: Any


def backward(config: FlashConfig, residuals: tuple, gradients: tuple[Array, Array]) -> DiffArgs:
  """Gradients of the arguments.

  Args:
    config: the static part of the call.
    residuals: arguments, leaves of `NonDiffArgs`, out and lse of the forward pass.
    gradients: of out and of lse.
  """
  args, leaves, out, lse = residuals
  non_diff, dtype = jax.tree.unflatten(config.treedef, leaves), lse.dtype
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, dtype)), args)

  def step(total: DiffArgs, start: tuple) -> DiffArgs:
    group, results = slice_group(config, args, start), (out, lse, *gradients)
    grads = _backward_group(config, group, _rows(group, results), args.bias, non_diff, total)
    b, n = start
    kv_head = n * args.k.shape[2] // args.q.shape[2]
    q = jnp.transpose(grads.q, (0, 3, 1, 2)) * (config.scale if scale_in_q(group) else 1.0)
    per_head = jax.tree.map(
      lambda array, part: update_block(array, part[0], (n,) + (0,) * (array.ndim - 1), add=True),
      total.per_head,
      grads.per_head,
    )
    k, v = (update_block(array, part, (b, 0, kv_head, 0)) for array, part in ((total.k, grads.k), (total.v, grads.v)))
    return DiffArgs(update_block(total.q, q, (b, 0, n, 0)), k, v, grads.bias, per_head)

  total = over_groups(config, args, step, zeros)
  return jax.tree.map(lambda gradient, leaf: gradient.astype(leaf.dtype), total, args)


def _rows(group: Group, results: tuple) -> _Rows:
  """The rows of a group from (out, lse, d_out, d_lse) of all examples and heads."""
  (C, T, N, _), (b, n) = group.q.shape, group.start
  out, d_out = (slice_block(array, (b, 0, n, 0), (C, T, N, array.shape[3])) for array in (results[0], results[2]))
  lse, d_lse = (slice_block(array, (b, n, 0), (C, N, T)) for array in (results[1], results[3]))
  delta = jnp.einsum("ctnv,ctnv->cnt", d_out, out, preferred_element_type=lse.dtype) - d_lse
  return _Rows(group.q, d_out, jnp.where(jnp.isfinite(lse), lse, jnp.inf), delta)


def _backward_group(
  config: FlashConfig, group: Group, rows: _Rows, bias: Array | None, non_diff: NonDiffArgs, total: DiffArgs
) -> _Grads:
  """Gradients of a group; that of the bias is added to `total`."""
  (C, T, N, H), dtype = group.q.shape, rows.lse.dtype
  carry = _Grads(
    jnp.zeros((C, N, H, T), dtype),
    jnp.zeros(group.k.shape, dtype),
    jnp.zeros(group.v.shape, dtype),
    total.bias,
    jax.tree.map(jnp.zeros_like, group.per_head),
  )

  def step(tiles: TilePass, carry: _Grads, start: tuple) -> _Grads:
    tile = Tile((*group.start, *start), (C, N, tiles.rows, tiles.columns))
    part = _backward_tile(config, group, rows, bias, non_diff, tile, tiles)
    t, s = start
    return _Grads(
      update_block(carry.q, part.q, (0, 0, 0, t), add=not config.tiling.rows_once),
      update_block(carry.k, part.k, (0, s, 0, 0), add=True),
      update_block(carry.v, part.v, (0, s, 0, 0), add=True),
      jax.tree.map(
        lambda total, tile_bias: update_block(total, tile_bias, tile.start, add=True), carry.bias, part.bias
      ),
      jax.tree.map(jnp.add, carry.per_head, part.per_head),
    )

  return over_tiles(config, non_diff, step, carry)


def _backward_tile(
  config: FlashConfig,
  group: Group,
  rows: _Rows,
  bias: Array | None,
  non_diff: NonDiffArgs,
  tile: Tile,
  tiles: TilePass,
) -> _Grads:
  """Gradients from one tile; its arrays have keys before queries."""
  (_, _, t, s), (C, N, count, columns) = tile
  K, dtype = group.k.shape[2], rows.lse.dtype
  q, d_out = slice_seq(rows.q, t, count), slice_seq(rows.d_out, t, count)
  q = q * config.scale if scale_in_q(group) else q
  lse, delta = (slice_block(array, (0, 0, t), (C, N, count))[:, :, None] for array in (rows.lse, rows.delta))
  k, v = (_repeat_heads(slice_seq(array, s, columns), N) for array in (group.k, group.v))
  dots = jnp.einsum("cnsh,cnth->cnst", k, q, preferred_element_type=dtype)
  logits_fn, mask = make_logits_fn(config, group, non_diff, tile, tiles, keys_first=True)
  bias_tile = None if bias is None else slice_block(bias, *tile)
  logits, logits_vjp = jax.vjp(logits_fn, dots, bias_tile, group.per_head)
  weights = jnp.exp(apply_mask(logits, mask) - lse)
  d_weights = jnp.einsum("cnsv,cntv->cnst", v, d_out, preferred_element_type=dtype)
  d_dots, d_bias, d_per_head = logits_vjp(weights * (d_weights - delta))
  d_dots = d_dots.astype(q.dtype)
  d_k = jnp.einsum("cnst,cnth->cnsh", d_dots, q, preferred_element_type=dtype)
  d_v = jnp.einsum("cnst,cntv->cnsv", weights.astype(d_out.dtype), d_out, preferred_element_type=dtype)
  d_q = jnp.einsum("cnhs,cnst->cnht", jnp.swapaxes(k, 2, 3), d_dots, preferred_element_type=dtype)
  return _Grads(d_q, _sum_heads(d_k, K), _sum_heads(d_v, K), d_bias, d_per_head)


def _repeat_heads(array: Array, heads: int) -> Array:
  """Keys or values of a tile, repeated for each of the query heads."""
  return array if array.shape[1] == heads else jnp.repeat(array, heads // array.shape[1], axis=1)


def _sum_heads(array: Array, kv_heads: int) -> Array:
  """Gradients `C S K H` of the key heads from those of the query heads, `C N S H`."""
  C, N, S, H = array.shape
  summed = array if kv_heads == N else array.reshape(C, kv_heads, N // kv_heads, S, H).sum(axis=2)
  return jnp.swapaxes(summed, 1, 2)
