"""Which tiles of the map from queries to keys are computed: sizes from the shape, without tiles that a mask empties."""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Bool

from attention_lab.attention.mask import Mask

Corner = tuple[int, int]  # first query and first key of a tile

SIDE = 1024  # queries and keys of a tile, at most: the fastest of 256 to 4096 on two CPU cores
LOGITS = 2**20  # of the tiles that are computed at a time, over examples and heads
NEAR = 256  # queries of a tile under a window, at most
LEAST = 64  # queries of a tile under a window, at least
FINE = 128  # queries and keys of a tile where a pattern leaves most of the map empty
WIDER, MORE, COARSER = 2, 32, 4  # times SIDE, LOGITS and FINE on an accelerator: a third of the time on one H200


class Pass(NamedTuple):
  """Tiles that are computed in one loop."""

  rows: int  # queries of each
  columns: int  # keys of each
  masked: bool  # some of their pairs may not be read
  corners: tuple[Corner, ...] | None  # None: at run time; a tile of keys before the first one holds nothing


class BlockMask(NamedTuple):
  """A pattern by tiles of one side, of all T × S pairs of positions 0, 1, 2, …"""

  side: int
  some: Bool[np.ndarray, "rows columns"]  # tiles in which a pair may be read
  every: Bool[np.ndarray, "rows columns"]  # tiles in which all that lie within T × S may be read
  drawn: tuple[int, int] = (0, 0)  # side and number of the other tiles, whose corners are known at run time


@dataclasses.dataclass(frozen=True)
class Tiling:
  """How the map is cut. T and S are filled up to multiples of `rows` and `columns`."""

  examples: int  # that are computed at a time
  kinds: int  # key heads that are computed at a time
  rows: int
  columns: int
  passes: tuple[Pass, ...]
  once: bool  # no query is in two tiles
  band: tuple[int, int] | None  # (left, right): the mask is −right < i − j < left and nothing else

  @property
  def drawn(self) -> bool:
    """Whether some tiles are known at run time only."""
    return any(tiles.corners is None for tiles in self.passes)


class _Band(NamedTuple):
  """The pairs −right < i − j < left of T × S."""

  T: int
  S: int
  left: int
  right: int

  def touches(self, corner: Corner, rows: int, columns: int) -> bool:
    """Whether a tile holds any of them."""
    t, s = corner
    return s - (t + rows - 1) < self.right and t - (s + columns - 1) < self.left

  def covers(self, corner: Corner, rows: int, columns: int) -> bool:
    """Whether all pairs of a tile are among them, but for queries beyond T."""
    t, s = corner
    return s + columns <= self.S and s + columns - 1 - t < self.right and t + rows - 1 - s < self.left


def make(
  T: int,
  S: int,
  groups: tuple[int, int],
  heads: int,
  mask: Mask,
  known: bool,
  bare: bool = True,
  cut: BlockMask | None = None,
) -> Tiling:
  """Tiles for (examples, key heads) = `groups`, each key head with `heads` query heads.

  known: positions are 0, 1, 2, …, so that causal masks and windows decide about tiles. bare: nothing but the mask says
  which pairs may be read. cut: where a pattern lets pairs be read, if positions are known; it is followed where that
  leaves out half of what would be computed.
  """
  causal = known and mask.causal and mask.prefix is None
  left, right = (mask.span or (T, S)) if known else (T, S)
  band = _Band(T, S, left, 1 if causal else right)
  still = known and mask.names() <= ({"causal", "window"} if causal else {"window"})  # the mask is the band
  rows, columns, near = sides(T, S, band.left + band.right - 2)
  if near:
    corners = [(t, max(0, min(t - left + 1, S - columns))) for t in range(0, T, rows)]
  else:
    corners = [(t, s) for t in range(0, T, rows) for s in range(0, S, columns)]
    corners = [corner for corner in corners if band.touches(corner, rows, columns)]
  whole = [still and bare and band.covers(corner, rows, columns) for corner in corners]
  passes, once = _passes(rows, columns, corners, whole), near or columns >= S
  if cut is not None:
    fewer = _followed(cut, band, still)
    if 2 * _pairs(fewer, cut) <= _pairs(passes, cut):
      passes, rows, columns, once = fewer, cut.side, cut.side, False
  reach = (min(left, T), min(band.right, S)) if still else None
  return Tiling(*_at_a_time(groups, heads * rows * columns), rows, columns, passes, once, reach)


def _followed(cut: BlockMask, band: _Band, still: bool) -> tuple[Pass, ...]:
  """The tiles of a pattern."""
  side, some, every, (drawn, number) = cut
  corners = [(int(t) * side, int(s) * side) for t, s in np.argwhere(some)]
  corners = [corner for corner in corners if band.touches(corner, side, side)]
  whole = [still and bool(every[t // side, s // side]) and band.covers((t, s), side, side) for t, s in corners]
  return _passes(side, side, corners, whole) + ((Pass(drawn, drawn, True, None),) if number else ())


def _passes(rows: int, columns: int, corners: list[Corner], whole: list[bool]) -> tuple[Pass, ...]:
  """At most two: tiles of which all pairs may be read, and the others."""
  split = {masked: tuple(c for c, one in zip(corners, whole, strict=True) if one != masked) for masked in (False, True)}
  return tuple(Pass(rows, columns, masked, own) for masked, own in split.items() if own)


def _pairs(passes: tuple[Pass, ...], cut: BlockMask) -> int:
  """How many pairs are computed."""
  return sum(p.rows * p.columns * (cut.drawn[1] if p.corners is None else len(p.corners)) for p in passes)


def sides(T: int, S: int, span: int) -> tuple[int, int, bool]:
  """Queries and keys of a tile, and whether it holds all keys that its queries may read: those within a window."""
  rows = min(NEAR, max(LEAST, 2 ** math.ceil(math.log2(max(span, 1)))))
  columns = -(-(rows + span) // LEAST) * LEAST
  if rows < T and columns < S:
    return rows, columns, True
  side = SIDE * WIDER if accelerated() else SIDE
  if side * side // 4 >= T * S:
    return T, S, False
  return _share(T, side), _share(S, side), False


def fine() -> int:
  """Queries and keys of a tile of a pattern that leaves most of the map empty."""
  return FINE * COARSER if accelerated() else FINE


def accelerated() -> bool:
  """Whether programs run on something else than a CPU."""
  return jax.default_backend() != "cpu"


def _share(length: int, side: int) -> int:
  """The side of as few tiles as hold a length, filled up as little as may be."""
  return length if length <= side else -(-length // (-(-length // side) * LEAST)) * LEAST


def _at_a_time(groups: tuple[int, int], logits: int) -> tuple[int, int]:
  """How many examples and key heads: divisors of their numbers, as many as fit."""
  (B, K), room = groups, max(1, LOGITS * (MORE if accelerated() else 1) // logits)
  kinds = max(k for k in range(1, K + 1) if K % k == 0 and k <= room)
  examples = max(b for b in range(1, B + 1) if B % b == 0 and (b == 1 or (kinds == K and b * kinds <= room)))
  return examples, kinds
