"""Softmax over the blocks of keys that each query names: work and memory grow with what is read, not with T × S.

Pairs of a query and a block that it names are sorted by block and cut into tiles of one block, so that the scores of a
tile are a product of two matrices: a block is gathered once for all the queries of a tile, as in algorithm 1 of Lu et
al. 2025 (https://arxiv.org/abs/2502.13189). The backward pass computes a tile's weights again from the logarithm of
their sum, and adds its gradients up by scattering. What is computed beyond the pairs is at most one tile for each
block.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.flash import tiles as tiling

ROWS = 64  # queries of a tile, at most: the fastest of 16 to 256 on two CPU cores, for blocks of 64 and of 256


class FlashConfig(NamedTuple):
  """What is known when a program is made."""

  block: int
  scale: float
  causal: bool  # a query reads only keys that do not stand after it


class _Operands(NamedTuple):
  """Queries, and keys and values by block, of all examples and heads."""

  q: Array  # R H
  k: Array  # E b H
  v: Array  # E b V


class _Tiles(NamedTuple):
  """Pairs of a query and one of its M blocks, sorted by block; a place of a tile without a pair has position −1."""

  owner: Array  # Z: the block of each tile
  row: Array  # Z R: its queries
  i: Array  # Z R: their positions
  j: Array  # Z: position of the first key
  valid: Array  # E b: of keys
  place: Array  # R M: where a pair is, in tiles laid end to end; beyond their end if there is no pair


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K V"],
  chosen: Int[Array, "B N T M"],
  valid: Bool[Array, "#B S"],
  form: FlashConfig,
) -> Float[Array, "B T N V"]:
  """Softmax-weighted values of the valid keys in the blocks `chosen`; a query that reads none gives zeros.

  chosen: different blocks of `form.block` consecutive keys, −1 for none. Queries and keys stand at 0, 1, 2, …
  """
  (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
  blocks = -(-S // form.block)
  seen = jnp.broadcast_to(valid[:, :, None, None], (B, S, K, 1))
  k, v, seen = (_by_block(array, blocks, form.block) for array in (k, v, seen))
  head = jnp.arange(B * N)[:, None, None] // (N // K) * blocks
  chosen = chosen.reshape(B * N, T, -1)
  owner = jnp.where(chosen < 0, len(k), head + chosen).reshape(B * N * T, -1)
  tiles = _tiles(owner, seen[..., 0], T, blocks, form.block)
  out = _attend(form, _Operands(jnp.swapaxes(q, 1, 2).reshape(-1, H), k, v), tiles)
  return jnp.swapaxes(out.reshape(B, N, T, -1), 1, 2)


def _by_block(array: Array, blocks: int, block: int) -> Array:
  """`B S K …` to `B·K·blocks block …`."""
  B, S, K, width = array.shape
  array = jnp.pad(array, ((0, 0), (0, blocks * block - S), (0, 0), (0, 0)))
  return jnp.swapaxes(array, 1, 2).reshape(B * K * blocks, block, width)


def _tiles(owner: Array, valid: Array, T: int, blocks: int, block: int) -> _Tiles:
  """Cuts the pairs `R M` of which `owner` names the blocks; one beyond the last block is no pair."""
  owners, pairs, rows = len(valid), owner.size, min(ROWS, block)
  count = -(-pairs // rows) + min(owners, pairs)
  order = jnp.argsort(owner.reshape(-1), stable=True).astype(jnp.int32)
  ranks = jnp.zeros_like(order).at[order].set(jnp.arange(pairs, dtype=jnp.int32), unique_indices=True)
  starts = jnp.searchsorted(owner.reshape(-1)[order], jnp.arange(owners + 1)).astype(jnp.int32)
  needed = -(-jnp.diff(starts) // rows)
  ends = jnp.cumsum(needed)
  firsts = ends - needed
  tile = jnp.arange(count)
  own = jnp.minimum(jnp.searchsorted(ends, tile, side="right"), owners - 1).astype(jnp.int32)
  rank = (starts[own] + (tile - firsts[own]) * rows)[:, None] + jnp.arange(rows)[None]
  row = order[jnp.minimum(rank, pairs - 1)] // owner.shape[1]
  of = jnp.minimum(owner, owners - 1)
  place = firsts[of] * rows + ranks.reshape(owner.shape) - starts[of]
  return _Tiles(
    own,
    row,
    jnp.where(rank < starts[own + 1][:, None], row % T, -1),
    own % blocks * block,
    valid,
    jnp.where(owner < owners, place, count * rows),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(form: FlashConfig, operands: _Operands, tiles: _Tiles) -> Array:
  return _forward(form, operands, tiles)[0]


def _forward(form: FlashConfig, operands: _Operands, tiles: _Tiles) -> tuple[Array, tuple]:
  """Out `R V`, and what the backward pass needs."""
  dtype = logits_dtype(operands.q, operands.k)

  def one(carry: tuple, tiles: _Tiles) -> tuple[tuple, tuple]:
    q, k, v = operands.q[tiles.row], operands.k[tiles.owner], operands.v[tiles.owner]
    logits = _logits(form, q, k, tiles)
    largest = jnp.max(logits, axis=-1)
    weights = jnp.exp(logits - _finite(largest)[..., None])
    out = jnp.einsum("zrb,zbv->zrv", weights.astype(v.dtype), v, preferred_element_type=dtype)
    return carry, (largest, jnp.sum(weights, axis=-1), out)

  largest, total, out = _over_tiles(one, (), tiles)[1]
  largest = largest.at[tiles.place].get(mode="fill", fill_value=-jnp.inf)
  most = jnp.max(largest, axis=1)
  share = jnp.exp(largest - _finite(most)[:, None])
  total, out = (array.at[tiles.place].get(mode="fill", fill_value=0) for array in (total, out))
  total = jnp.sum(share * total, axis=1)
  out = jnp.sum(share[..., None] * out, axis=1) / jnp.where(total == 0.0, 1.0, total)[:, None]
  sums = jnp.where(total == 0.0, jnp.inf, most + jnp.log(total))
  return out, (operands, tiles, out, sums)


def _backward(form: FlashConfig, kept: tuple, gradient: Array) -> tuple[_Operands, None]:
  operands, tiles, out, sums = kept
  delta = jnp.sum(gradient * out, axis=-1)
  total = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, sums.dtype), operands)

  def one(total: _Operands, tiles: _Tiles) -> tuple[_Operands, None]:
    (row, owner), dtype = tiles[1::-1], sums.dtype
    q, k, v, g = operands.q[row], operands.k[owner], operands.v[owner], gradient[row]
    weights = jnp.exp(_logits(form, q, k, tiles) - sums[row][..., None])
    fits = jnp.einsum("zrv,zbv->zrb", g.astype(v.dtype), v, preferred_element_type=dtype)
    slopes = (weights * (fits - delta[row][..., None]) * form.scale).astype(q.dtype)
    d_q = jnp.einsum("zrb,zbh->zrh", slopes, k, preferred_element_type=dtype)
    d_k = jnp.einsum("zrb,zrh->zbh", slopes, q, preferred_element_type=dtype)
    d_v = jnp.einsum("zrb,zrv->zbv", weights.astype(v.dtype), g.astype(v.dtype), preferred_element_type=dtype)
    return _Operands(total.q.at[row].add(d_q), total.k.at[owner].add(d_k), total.v.at[owner].add(d_v)), None

  total, _ = _over_tiles(one, total, tiles)
  return jax.tree.map(lambda slope, leaf: slope.astype(leaf.dtype), total, operands), None


_attend.defvjp(_forward, _backward)


def _logits(form: FlashConfig, q: Array, k: Array, tiles: _Tiles) -> Array:
  """`Z R b`, −∞ where not readable."""
  logits = jnp.einsum("zrh,zbh->zrb", q, k, preferred_element_type=logits_dtype(q, k)) * form.scale
  j = tiles.j[:, None] + jnp.arange(form.block)[None]
  readable = tiles.valid[tiles.owner][:, None] & (tiles.i >= 0)[..., None]
  if form.causal:
    readable &= j[:, None] <= tiles.i[..., None]
  return jnp.where(readable, logits, -jnp.inf)


def _over_tiles(one: Any, carry: Any, tiles: _Tiles) -> tuple[Any, Any]:
  """Runs `one` over so many tiles at a time as fit; what it gives has one leading axis, of pairs in tiles."""
  (count, rows), block = tiles.row.shape, tiles.valid.shape[1]
  fit = max(1, tiling.LOGITS // (rows * block))
  steps = -(-count // fit)
  size = -(-count // steps)

  def cut(array: Array, fill: int) -> Array:
    widths = ((0, steps * size - count),) + ((0, 0),) * (array.ndim - 1)
    return jnp.pad(array, widths, constant_values=fill).reshape(steps, size, *array.shape[1:])

  each = (cut(tiles.owner, 0), cut(tiles.row, 0), cut(tiles.i, -1), cut(tiles.j, 0))
  carry, made = jax.lax.scan(lambda carry, some: one(carry, _Tiles(*some, tiles.valid, tiles.place)), carry, each)
  return carry, jax.tree.map(lambda array: array.reshape(-1, *array.shape[3:])[: count * rows], made)


def _finite(largest: Array) -> Array:
  return jnp.where(jnp.isfinite(largest), largest, 0.0)
