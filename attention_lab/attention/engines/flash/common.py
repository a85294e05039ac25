"""What the forward and the backward pass by tiles share: their operands, loops over groups and tiles, a tile's logits.

A group is the examples and heads that are computed at a time.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.flash import tiles as tiling
from attention_lab.attention.engines.flash.block_mask import (
  MaskMod,
  Pairs,
  ScoreMod,
  Tile,
  banded,
  places,
  readable,
  take,
)
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


class FlashConfig(NamedTuple):
  """What is known while tracing."""

  tiling: tiling.Tiling
  lengths: tuple[int, int]  # T and S, without what fills the last tiles up
  scale: float
  score: ScoreMod | None
  reads: MaskMod | None
  facts: Any  # how the leaves of `Facts` are put together


class DiffArgs(NamedTuple):
  """What has a gradient. T and S are whole tiles."""

  q: Float[Array, "B T N H"]
  k: Float[Array, "B S K H"]
  v: Float[Array, "B S K V"]
  bias: Float[Array, "#B #N #T #S"] | None
  per_head: Any  # arrays `N …`


class NonDiffArgs(NamedTuple):
  """What has none."""

  mask: Mask
  positions: Positions
  fixed: Any  # what `Form.reads` reads
  corners: Int[Array, "_ 2"] | None  # of the tiles that are drawn


class Group(NamedTuple):
  """Operands of the examples and heads that are computed at a time."""

  start: tuple[Any, Any]  # first example and query head
  q: Float[Array, "C T N H"]
  k: Float[Array, "C S K H"]
  v: Float[Array, "C S K V"]
  per_head: Any  # `1 N …`


def over_groups(form: FlashConfig, operands: DiffArgs, step: Callable, carry: Any) -> Any:
  """Runs `step(carry, (first example, first query head))` for all groups."""
  (B, _, N, _), K, tiles = operands.q.shape, operands.k.shape[2], form.tiling
  starts = [(b, n) for b in range(0, B, tiles.examples) for n in range(0, N, tiles.kinds * N // K)]
  return over(starts, step, carry)


def over_tiles(form: FlashConfig, facts: NonDiffArgs, step: Callable, carry: Any) -> Any:
  """Runs `step(pass, carry, (first query, first key))` for all tiles."""
  for tiles in form.tiling.passes:
    corners = facts.corners if tiles.corners is None else tiles.corners
    carry = over(corners, functools.partial(step, tiles), carry)
  return carry


def over(starts: Any, step: Callable, carry: Any) -> Any:
  """Runs `step(carry, start)` for all starts; a single one without a loop."""
  if len(starts) == 1:
    return step(carry, tuple(starts[0]))
  starts = starts if isinstance(starts, jax.Array) else np.asarray(starts, np.int32)
  return jax.lax.scan(lambda carry, start: (step(carry, tuple(start)), None), carry, starts)[0]


def group(form: FlashConfig, operands: DiffArgs, start: tuple) -> Group:
  """The group that starts there."""
  (b, n), (N, K), tiles = start, (operands.q.shape[2], operands.k.shape[2]), form.tiling

  def cut(array: Array, first: Any, heads: int) -> Array:
    return take(array, (b, 0, first, 0), (tiles.examples, array.shape[1], heads, array.shape[3]))

  heads, own = tiles.kinds * N // K, n * K // N
  per_head = jax.tree.map(
    lambda leaf: take(leaf, (n,) + (0,) * (leaf.ndim - 1), (heads, *leaf.shape[1:]))[None], operands.per_head
  )
  keys, values = (cut(array, own, tiles.kinds) for array in (operands.k, operands.v))
  return Group(start, cut(operands.q, n, heads), keys, values, per_head)


def piece(array: Array, first: Any, size: int) -> Array:
  """`C N size H`: some of the positions of `C T N H`."""
  return jnp.swapaxes(jax.lax.dynamic_slice_in_dim(array, first, size, axis=1), 1, 2)


def folded(group: Group) -> bool:
  """Whether the scale goes into the queries: not where they are rounded more coarsely than logits."""
  return group.q.dtype == logits_dtype(group.q)


def finisher(
  form: FlashConfig, group: Group, facts: NonDiffArgs, tile: Tile, tiles: tiling.Pass, keys_first: bool = False
) -> tuple[Callable, Array | None]:
  """What makes logits of a tile's inner products, its bias and the group's `per_head`; and which may be read."""

  def turned(array: Array) -> Array:
    return jnp.swapaxes(array, -1, -2) if keys_first else array

  def finish(dots: Array, bias: Array | None, per_head: Any) -> Array:
    logits = dots if folded(group) else dots * form.scale
    if form.score is not None:
      logits = form.score(logits, Pairs(i, j, per_head))
    return logits if bias is None else logits + turned(bias).astype(logits.dtype)

  queries, keys = places(facts.positions, tile, form.lengths[1])
  i, j = turned(queries[:, None, :, None]), turned(keys[:, None, None, :])
  if not tiles.masked:
    return finish, None
  band = form.tiling.band
  mask = banded(i, j, band, form.lengths) if band else turned(readable(facts.mask, queries, keys, tile))
  if form.reads is not None:
    mask &= form.reads(facts.fixed, i, j)
  return finish, mask & (j >= 0) if tiles.corners is None else mask


def hidden(logits: Array, mask: Array | None) -> Array:
  """Logits, −∞ where the mask says no."""
  return logits if mask is None else jnp.where(mask, logits, -jnp.inf)
