"""Softmax attention of each query to a list of key blocks: work and memory grow with what is read, not with T × S.

For a reader of FlashAttention: the block mask here differs by query and is known at run time only. Pairs of a query and
one of its blocks are sorted by block and cut into tiles of one block, so that the logits of a tile are a product of two
matrices: a block is gathered once for all the queries of a tile, as in algorithm 1 of Lu et al. 2025
(https://arxiv.org/abs/2502.13189). The results of a query's tiles are merged by their row maxima; the backward pass
recomputes a tile's weights from the lse and adds its gradients up by scattering. At most one tile for each block is
computed beyond the pairs.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.flash import tiles as flash_tiles
from attention_lab.attention.engines.flash.operands import finite_max

TILE_QUERIES = 64  # queries of a tile, at most: the fastest of 16 to 256 on two CPU cores, for blocks of 64 and of 256


class BlockSparseConfig(NamedTuple):
  """The static part of a call, known while tracing."""

  block: int  # keys of a block
  scale: float
  causal: bool  # a query reads no key after it


class _DiffArgs(NamedTuple):
  """Queries, and keys and values by block, of all examples and heads: the arguments with gradients."""

  q: Array  # R H
  k: Array  # E b H
  v: Array  # E b V


class _Tiles(NamedTuple):
  """Pairs of a query and one of its M blocks, sorted by block; a slot of a tile without a pair has position −1."""

  block: Array  # Z: index of each tile's block
  row: Array  # Z R: indices of its queries
  i: Array  # Z R: positions of its queries
  j: Array  # Z: position of its first key
  valid: Array  # E b: valid keys
  slot: Array  # R M: index of each pair in the tiles laid end to end; beyond their end if there is no pair


def attend(
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K V"],
  block_ids: Int[Array, "B N T M"],
  valid: Bool[Array, "#B S"],
  config: BlockSparseConfig,
) -> Float[Array, "B T N V"]:
  """Softmax-weighted values of the valid keys in each query's blocks; a query that reads none gives zeros.

  Args:
    q: queries, at positions 0, 1, 2, …
    k: keys, at positions 0, 1, 2, …
    v: values.
    block_ids: each query's different blocks of `config.block` consecutive keys, −1 for none.
    valid: keys that are readable.
    config: the static part.
  """
  (B, T, N, H), (S, K) = q.shape, k.shape[1:3]
  blocks = -(-S // config.block)
  seen = jnp.broadcast_to(valid[:, :, None, None], (B, S, K, 1))
  k, v, seen = (_by_block(array, blocks, config.block) for array in (k, v, seen))
  first = jnp.arange(B * N)[:, None, None] // (N // K) * blocks
  block_ids = block_ids.reshape(B * N, T, -1)
  block_ids = jnp.where(block_ids < 0, len(k), first + block_ids).reshape(B * N * T, -1)
  tiles = _make_tiles(block_ids, seen[..., 0], T, blocks, config.block)
  out = _attend(config, _DiffArgs(jnp.swapaxes(q, 1, 2).reshape(-1, H), k, v), tiles)
  return jnp.swapaxes(out.reshape(B, N, T, -1), 1, 2)


def _by_block(array: Array, blocks: int, block: int) -> Array:
  """`B S K …` to `B·K·blocks block …`."""
  B, S, K, width = array.shape
  array = jnp.pad(array, ((0, 0), (0, blocks * block - S), (0, 0), (0, 0)))
  return jnp.swapaxes(array, 1, 2).reshape(B * K * blocks, block, width)


def _make_tiles(block_ids: Array, valid: Array, T: int, blocks: int, block: int) -> _Tiles:
  """The tiles of the pairs `R M` of a query and the block in `block_ids`; an id beyond the last block is no pair."""
  total, pairs, rows = len(valid), block_ids.size, min(TILE_QUERIES, block)
  count = -(-pairs // rows) + min(total, pairs)
  order = jnp.argsort(block_ids.reshape(-1), stable=True).astype(jnp.int32)
  ranks = jnp.zeros_like(order).at[order].set(jnp.arange(pairs, dtype=jnp.int32), unique_indices=True)
  starts = jnp.searchsorted(block_ids.reshape(-1)[order], jnp.arange(total + 1)).astype(jnp.int32)
  needed = -(-jnp.diff(starts) // rows)
  ends = jnp.cumsum(needed)
  firsts = ends - needed
  tile = jnp.arange(count)
  tile_block = jnp.minimum(jnp.searchsorted(ends, tile, side="right"), total - 1).astype(jnp.int32)
  rank = (starts[tile_block] + (tile - firsts[tile_block]) * rows)[:, None] + jnp.arange(rows)[None]
  row = order[jnp.minimum(rank, pairs - 1)] // block_ids.shape[1]
  pair_block = jnp.minimum(block_ids, total - 1)
  slot = firsts[pair_block] * rows + ranks.reshape(block_ids.shape) - starts[pair_block]
  return _Tiles(
    tile_block,
    row,
    jnp.where(rank < starts[tile_block + 1][:, None], row % T, -1),
    tile_block % blocks * block,
    valid,
    jnp.where(block_ids < total, slot, count * rows),
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(config: BlockSparseConfig, args: _DiffArgs, tiles: _Tiles) -> Array:
  return _forward(config, args, tiles)[0]


def _forward(config: BlockSparseConfig, args: _DiffArgs, tiles: _Tiles) -> tuple[Array, tuple]:
  """Out `R V`, and the residuals of the backward pass."""
  dtype = logits_dtype(args.q, args.k)

  def step(carry: tuple, tiles: _Tiles) -> tuple[tuple, tuple]:
    q, k, v = args.q[tiles.row], args.k[tiles.block], args.v[tiles.block]
    logits = _logits(config, q, k, tiles)
    row_max = jnp.max(logits, axis=-1)
    weights = jnp.exp(logits - finite_max(row_max)[..., None])
    out = jnp.einsum("zrb,zbv->zrv", weights.astype(v.dtype), v, preferred_element_type=dtype)
    return carry, (row_max, jnp.sum(weights, axis=-1), out)

  row_max, row_sum, out = _over_tiles(step, (), tiles)[1]
  row_max = row_max.at[tiles.slot].get(mode="fill", fill_value=-jnp.inf)
  largest = jnp.max(row_max, axis=1)
  share = jnp.exp(row_max - finite_max(largest)[:, None])
  row_sum, out = (array.at[tiles.slot].get(mode="fill", fill_value=0) for array in (row_sum, out))
  total = jnp.sum(share * row_sum, axis=1)
  out = jnp.sum(share[..., None] * out, axis=1) / jnp.where(total == 0.0, 1.0, total)[:, None]
  lse = jnp.where(total == 0.0, jnp.inf, largest + jnp.log(total))
  return out, (args, tiles, out, lse)


def _backward(config: BlockSparseConfig, residuals: tuple, d_out: Array) -> tuple[_DiffArgs, None]:
  """Gradients of q, k and v; the tiles have none."""
  args, tiles, out, lse = residuals
  delta = jnp.sum(d_out * out, axis=-1)
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, lse.dtype), args)

  def step(total: _DiffArgs, tiles: _Tiles) -> tuple[_DiffArgs, None]:
    row, block, dtype = tiles.row, tiles.block, lse.dtype
    q, k, v, g = args.q[row], args.k[block], args.v[block], d_out[row]
    weights = jnp.exp(_logits(config, q, k, tiles) - lse[row][..., None])
    d_weights = jnp.einsum("zrv,zbv->zrb", g.astype(v.dtype), v, preferred_element_type=dtype)
    d_dots = (weights * (d_weights - delta[row][..., None]) * config.scale).astype(q.dtype)
    d_q = jnp.einsum("zrb,zbh->zrh", d_dots, k, preferred_element_type=dtype)
    d_k = jnp.einsum("zrb,zrh->zbh", d_dots, q, preferred_element_type=dtype)
    d_v = jnp.einsum("zrb,zrv->zbv", weights.astype(v.dtype), g.astype(v.dtype), preferred_element_type=dtype)
    return _DiffArgs(total.q.at[row].add(d_q), total.k.at[block].add(d_k), total.v.at[block].add(d_v)), None

  total, _ = _over_tiles(step, zeros, tiles)
  return jax.tree.map(lambda gradient, leaf: gradient.astype(leaf.dtype), total, args), None


_attend.defvjp(_forward, _backward)


def _logits(config: BlockSparseConfig, q: Array, k: Array, tiles: _Tiles) -> Array:
  """Logits `Z R b` of tiles, −∞ where not readable."""
  logits = jnp.einsum("zrh,zbh->zrb", q, k, preferred_element_type=logits_dtype(q, k)) * config.scale
  j = tiles.j[:, None] + jnp.arange(config.block)[None]
  readable = tiles.valid[tiles.block][:, None] & (tiles.i >= 0)[..., None]
  if config.causal:
    readable &= j[:, None] <= tiles.i[..., None]
  return jnp.where(readable, logits, -jnp.inf)


def _over_tiles(step: Any, carry: Any, tiles: _Tiles) -> tuple[Any, Any]:
  """The carry after `step` over as many tiles at a time as fit, and its results with one leading axis, of slots."""
  (count, rows), block = tiles.row.shape, tiles.valid.shape[1]
  fit = max(1, flash_tiles.MAX_LOGITS // (rows * block))
  steps = -(-count // fit)
  size = -(-count // steps)

  def split(array: Array, fill: int) -> Array:
    widths = ((0, steps * size - count),) + ((0, 0),) * (array.ndim - 1)
    return jnp.pad(array, widths, constant_values=fill).reshape(steps, size, *array.shape[1:])

  parts = (split(tiles.block, 0), split(tiles.row, 0), split(tiles.i, -1), split(tiles.j, 0))
  carry, results = jax.lax.scan(lambda carry, part: step(carry, _Tiles(*part, tiles.valid, tiles.slot)), carry, parts)
  return carry, jax.tree.map(lambda array: array.reshape(-1, *array.shape[3:])[: count * rows], results)
