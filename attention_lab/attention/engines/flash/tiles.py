"""The tiles of the map from queries to keys that are computed: sizes from the shape, without tiles that a mask empties.

A window is cut into tiles here: `make_tiling` gives each run of queries one tile with the keys of its window.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from attention_lab.attention.mask import Mask

TileStart = tuple[int, int]  # first query and first key of a tile

MAX_TILE = 1024  # queries and keys of a tile, at most: the fastest of 256 to 4096 on two CPU cores
MAX_LOGITS = 2**20  # logits of the tiles that are computed at a time, over examples and heads
WINDOW_TILE_MAX = 256  # queries of a tile under a window, at most
WINDOW_TILE_MIN = 64  # queries of a tile under a window, at least; sizes of tiles are multiples of it
SPARSE_TILE = 128  # queries and keys of a tile under a pattern that leaves most of the map empty
ACCEL_TILE_SCALE = 2  # factor of MAX_TILE on an accelerator; the three factors take a third of the time on one H200
ACCEL_LOGITS_SCALE = 32  # factor of MAX_LOGITS on an accelerator
ACCEL_SPARSE_SCALE = 4  # factor of SPARSE_TILE on an accelerator


class TilePass(NamedTuple):
  """Tiles of one size that are computed in one loop."""

  rows: int  # queries of each
  columns: int  # keys of each
  masked: bool  # whether a tile may hold pairs that are not readable
  starts: tuple[TileStart, ...] | None  # None: known at run time, where a negative first key means an empty tile


class BlockMask(NamedTuple):
  """A pattern by square tiles over all T × S pairs of positions 0, 1, 2, …; a tile in neither array is empty."""

  tile: int  # queries and keys of a tile
  partial: Bool[np.ndarray, "rows columns"]  # tiles of which some pairs are readable
  full: Bool[np.ndarray, "rows columns"]  # tiles of which all pairs within T × S are readable
  dynamic: tuple[int, int] = (0, 0)  # size and number of further tiles, whose starts are known at run time


@dataclasses.dataclass(frozen=True)
class Tiling:
  """How the map is cut into tiles. T and S are padded to multiples of `rows` and `columns`."""

  batch_block: int  # examples that are computed at a time
  kv_heads: int  # key heads that are computed at a time
  rows: int
  columns: int
  passes: tuple[TilePass, ...]
  rows_once: bool  # no query is in two tiles, so that no running maximum is needed
  band: tuple[int, int] | None  # (left, right): the mask is −right < i − j < left and nothing else

  @property
  def dynamic(self) -> bool:
    """Whether some tiles are known at run time only."""
    return any(tiles.starts is None for tiles in self.passes)


class _Band(NamedTuple):
  """The pairs −right < i − j < left of T × S."""

  T: int
  S: int
  left: int
  right: int

  def touches(self, start: TileStart, rows: int, columns: int) -> bool:
    """Whether a tile holds a pair of the band."""
    t, s = start
    return s - (t + rows - 1) < self.right and t - (s + columns - 1) < self.left

  def covers(self, start: TileStart, rows: int, columns: int) -> bool:
    """Whether all pairs of a tile are in the band, except those of queries beyond T."""
    t, s = start
    return s + columns <= self.S and s + columns - 1 - t < self.right and t + rows - 1 - s < self.left


def make_tiling(
  T: int,
  S: int,
  groups: tuple[int, int],
  heads: int,
  mask: Mask,
  positions_known: bool,
  mask_only: bool = True,
  block_mask: BlockMask | None = None,
) -> Tiling:
  """The tiles of a map of T queries and S keys.

  Args:
    T: queries.
    S: keys.
    groups: examples and key heads.
    heads: query heads of each key head.
    mask: the caller's mask.
    positions_known: positions are 0, 1, 2, …, so that causal masks and windows decide about tiles.
    mask_only: nothing but the mask says which pairs are readable.
    block_mask: the tiles of a pattern, if positions are known; it is followed where it leaves out at least half of
      what would be computed.
  """
  causal = positions_known and mask.causal and mask.prefix is None
  left, right = (mask.span or (T, S)) if positions_known else (T, S)
  band = _Band(T, S, left, 1 if causal else right)
  is_band = positions_known and mask.names() <= ({"causal", "window"} if causal else {"window"})
  rows, columns, windowed = tile_sizes(T, S, band.left + band.right - 2)
  if windowed:
    starts = [(t, max(0, min(t - left + 1, S - columns))) for t in range(0, T, rows)]
  else:
    starts = [(t, s) for t in range(0, T, rows) for s in range(0, S, columns)]
    starts = [start for start in starts if band.touches(start, rows, columns)]
  full = [is_band and mask_only and band.covers(start, rows, columns) for start in starts]
  passes, rows_once = _passes(rows, columns, starts, full), windowed or columns >= S
  if block_mask is not None:
    sparse = _block_mask_passes(block_mask, band, is_band)
    if 2 * _pairs(sparse, block_mask) <= _pairs(passes, block_mask):
      passes, rows, columns, rows_once = sparse, block_mask.tile, block_mask.tile, False
  limits = (min(left, T), min(band.right, S)) if is_band else None
  return Tiling(*_group_sizes(groups, heads * rows * columns), rows, columns, passes, rows_once, limits)


def _block_mask_passes(block_mask: BlockMask, band: _Band, is_band: bool) -> tuple[TilePass, ...]:
  """The tiles of a block mask that touch the band."""
  size, partial, full, (dynamic_size, dynamic_count) = block_mask
  starts = [(int(t) * size, int(s) * size) for t, s in np.argwhere(partial | full)]
  starts = [start for start in starts if band.touches(start, size, size)]
  unmasked = [is_band and bool(full[t // size, s // size]) and band.covers((t, s), size, size) for t, s in starts]
  dynamic = (TilePass(dynamic_size, dynamic_size, True, None),) if dynamic_count else ()
  return _passes(size, size, starts, unmasked) + dynamic


def _passes(rows: int, columns: int, starts: list[TileStart], full: list[bool]) -> tuple[TilePass, ...]:
  """At most two passes: tiles of which all pairs are readable, and the others."""
  unmasked, masked = (tuple(start for start, f in zip(starts, full, strict=True) if f == wanted) for wanted in (1, 0))
  passes = TilePass(rows, columns, False, unmasked), TilePass(rows, columns, True, masked)
  return tuple(tiles for tiles in passes if tiles.starts)


def _pairs(passes: tuple[TilePass, ...], block_mask: BlockMask) -> int:
  """The number of pairs that are computed."""
  counts = (block_mask.dynamic[1] if tiles.starts is None else len(tiles.starts) for tiles in passes)
  return sum(tiles.rows * tiles.columns * count for tiles, count in zip(passes, counts, strict=True))


def tile_sizes(T: int, S: int, span: int) -> tuple[int, int, bool]:
  """Queries and keys of a tile, and whether it holds all keys that its queries may read: those within a window.

  span: keys that a query reads beyond its own, left + right − 2 of a band.
  """
  rows = min(WINDOW_TILE_MAX, max(WINDOW_TILE_MIN, 2 ** math.ceil(math.log2(max(span, 1)))))
  columns = -(-(rows + span) // WINDOW_TILE_MIN) * WINDOW_TILE_MIN
  if rows < T and columns < S:
    return rows, columns, True
  size = MAX_TILE * ACCEL_TILE_SCALE if on_accelerator() else MAX_TILE
  if size * size // 4 >= T * S:
    return T, S, False
  return _even_size(T, size), _even_size(S, size), False


def sparse_tile() -> int:
  """Queries and keys of a tile under a pattern that leaves most of the map empty."""
  return SPARSE_TILE * ACCEL_SPARSE_SCALE if on_accelerator() else SPARSE_TILE


def on_accelerator() -> bool:
  """Whether programs run on another device than a CPU."""
  return jax.default_backend() != "cpu"


def _even_size(length: int, limit: int) -> int:
  """The size, at most `limit`, of as few tiles as hold a length, with as little padding as may be."""
  return length if length <= limit else -(-length // (-(-length // limit) * WINDOW_TILE_MIN)) * WINDOW_TILE_MIN


def _group_sizes(groups: tuple[int, int], logits: int) -> tuple[int, int]:
  """(batch_block, kv_heads) of a group: divisors of the numbers of examples and key heads, as many as fit."""
  (B, K), room = groups, max(1, MAX_LOGITS * (ACCEL_LOGITS_SCALE if on_accelerator() else 1) // logits)
  kv_heads = max(k for k in range(1, K + 1) if K % k == 0 and k <= room)
  batch_block = max(b for b in range(1, B + 1) if B % b == 0 and (b == 1 or (kv_heads == K and b * kv_heads <= room)))
  return batch_block, kv_heads
