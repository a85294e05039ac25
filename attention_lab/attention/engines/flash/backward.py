"""The backward pass of softmax attention by tiles: weights are computed again from the logarithm of their sum.

Dao et al. 2022, https://arxiv.org/abs/2205.14135, algorithm 4, with keys before queries in a tile, so that no product
contracts over the leading axis of a large operand, which costs a CPU two to four times as much.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attention_lab.attention.engines.flash import common
from attention_lab.attention.engines.flash import tiles as tiling
from attention_lab.attention.engines.flash.block_mask import Tile, put, take
from attention_lab.attention.engines.flash.common import DiffArgs, FlashConfig, Group, NonDiffArgs, piece


class _Rows(NamedTuple):
  """What belongs to the queries of a group."""

  q: Array  # C T N H
  gradient: Array  # C T N V, of the output
  sums: Array  # C N T, +∞ for a query that reads nothing
  delta: Array  # C N T: what a weight's gradient is compared with


class _Totals(NamedTuple):
  """Gradients as they add up over a group's tiles."""

  q: Array  # C N H T
  k: Array  # C S K H
  v: Array  # C S K V
  bias: Array | None  # of all groups
  per_head: Any


def backward(form: FlashConfig, kept: tuple, gradients: tuple[Array, Array]) -> DiffArgs:
  """Gradients of the operands from those of the output and of the logarithms of sums."""
  operands, leaves, out, sums = kept
  facts, dtype = jax.tree.unflatten(form.facts, leaves), sums.dtype
  total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.promote_types(leaf.dtype, dtype)), operands)

  def one(total: DiffArgs, start: tuple) -> DiffArgs:
    group, results = common.group(form, operands, start), (out, sums, *gradients)
    own = _backward_group(form, group, _rows(group, results), operands.bias, facts, total)
    b, n = start
    kind = n * operands.k.shape[2] // operands.q.shape[2]
    q = jnp.transpose(own.q, (0, 3, 1, 2)) * (form.scale if common.folded(group) else 1.0)
    per_head = jax.tree.map(
      lambda whole, part: put(whole, part[0], (n,) + (0,) * (whole.ndim - 1), added=True), total.per_head, own.per_head
    )
    k, v = (put(whole, part, (b, 0, kind, 0)) for whole, part in ((total.k, own.k), (total.v, own.v)))
    return DiffArgs(put(total.q, q, (b, 0, n, 0)), k, v, own.bias, per_head)

  total = common.over_groups(form, operands, one, total)
  return jax.tree.map(lambda gradient, leaf: gradient.astype(leaf.dtype), total, operands)


def _rows(group: Group, results: tuple) -> _Rows:
  (C, T, N, _), (b, n) = group.q.shape, group.start
  out, gradient = (take(array, (b, 0, n, 0), (C, T, N, array.shape[3])) for array in (results[0], results[2]))
  sums, d_sums = (take(array, (b, n, 0), (C, N, T)) for array in (results[1], results[3]))
  delta = jnp.einsum("ctnv,ctnv->cnt", gradient, out, preferred_element_type=sums.dtype) - d_sums
  return _Rows(group.q, gradient, jnp.where(jnp.isfinite(sums), sums, jnp.inf), delta)


def _backward_group(
  form: FlashConfig, group: Group, rows: _Rows, bias: Array | None, facts: NonDiffArgs, total: DiffArgs
) -> _Totals:
  (C, T, N, H), dtype = group.q.shape, rows.sums.dtype
  carry = _Totals(
    jnp.zeros((C, N, H, T), dtype),
    jnp.zeros(group.k.shape, dtype),
    jnp.zeros(group.v.shape, dtype),
    total.bias,
    jax.tree.map(jnp.zeros_like, group.per_head),
  )

  def step(tiles: tiling.Pass, carry: _Totals, corner: tuple) -> _Totals:
    tile = Tile((*group.start, *corner), (C, N, tiles.rows, tiles.columns))
    part = _tile(form, group, rows, bias, facts, tile, tiles)
    t, s = corner
    return _Totals(
      put(carry.q, part.q, (0, 0, 0, t), added=not form.tiling.once),
      put(carry.k, part.k, (0, s, 0, 0), added=True),
      put(carry.v, part.v, (0, s, 0, 0), added=True),
      None if bias is None else put(carry.bias, part.bias, tile.start, added=True),
      jax.tree.map(jnp.add, carry.per_head, part.per_head),
    )

  return common.over_tiles(form, facts, step, carry)


def _tile(
  form: FlashConfig, group: Group, rows: _Rows, bias: Array | None, facts: NonDiffArgs, tile: Tile, tiles: tiling.Pass
) -> _Totals:
  """Gradients from one tile; its arrays have keys before queries."""
  (_, _, t, s), (C, N, count, columns) = tile
  K, dtype = group.k.shape[2], rows.sums.dtype
  q, gradient = piece(rows.q, t, count), piece(rows.gradient, t, count)
  q = q * form.scale if common.folded(group) else q
  sums, delta = (take(array, (0, 0, t), (C, N, count))[:, :, None] for array in (rows.sums, rows.delta))
  k, v = (_repeated(piece(array, s, columns), N) for array in (group.k, group.v))
  dots = jnp.einsum("cnsh,cnth->cnst", k, q, preferred_element_type=dtype)
  finish, mask = common.finisher(form, group, facts, tile, tiles, keys_first=True)
  logits, pull = jax.vjp(finish, dots, None if bias is None else take(bias, *tile), group.per_head)
  weights = jnp.exp(common.hidden(logits, mask) - sums)
  fits = jnp.einsum("cnsv,cntv->cnst", v, gradient, preferred_element_type=dtype)
  d_dots, d_bias, d_per_head = pull(weights * (fits - delta))
  d_dots = d_dots.astype(q.dtype)
  d_k = jnp.einsum("cnst,cnth->cnsh", d_dots, q, preferred_element_type=dtype)
  d_v = jnp.einsum("cnst,cntv->cnsv", weights.astype(gradient.dtype), gradient, preferred_element_type=dtype)
  d_q = jnp.einsum("cnhs,cnst->cnht", jnp.swapaxes(k, 2, 3), d_dots, preferred_element_type=dtype)
  return _Totals(d_q, _summed(d_k, K), _summed(d_v, K), d_bias, d_per_head)


def _repeated(array: Array, heads: int) -> Array:
  """Keys or values of a tile for each of the query heads."""
  return array if array.shape[1] == heads else jnp.repeat(array, heads // array.shape[1], axis=1)


def _summed(array: Array, kinds: int) -> Array:
  """`C S K H` from gradients `C N S H`."""
  C, N, S, H = array.shape
  return jnp.swapaxes(array if kinds == N else array.reshape(C, kinds, N // kinds, S, H).sum(axis=2), 1, 2)
