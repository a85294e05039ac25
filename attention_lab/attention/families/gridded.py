"""Patterns on a grid of tokens, such as the patches of an image or a video, in row-major order.

Class and register tokens stand in front of the grid.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

from jaxtyping import Array, Bool

from attention_lab.attention.base import Claims, Params, Unsupported
from attention_lab.attention.families.patterned import Patterned
from attention_lab.attention.positions import Positions

Coordinates = tuple[Array, ...]  # (row, column) or (frame, row, column) of tokens


class Grid(NamedTuple):
  """Sizes of a grid's axes, all but the first, which is not bounded; and the number of tokens before the grid."""

  sizes: tuple[int, ...]
  extra: int = 0

  def coordinates(self, positions: Array) -> Coordinates:
    """Row, column (or frame, row, column) of tokens on the grid."""
    index, axes = positions - self.extra, []
    for size in reversed(self.sizes):
      axes.append(index % size)
      index = index // size
    return (index, *reversed(axes))

  def span(self, max_offset: int) -> int:
    """The W with |i − j| < W for tokens whose coordinates differ by at most `max_offset` along each axis."""
    steps = [math.prod(self.sizes[axis:]) for axis in range(len(self.sizes) + 1)]
    bounds = (max_offset, *(min(max_offset, size - 1) for size in self.sizes))
    return 1 + sum(step * bound for step, bound in zip(steps, bounds, strict=True))


@dataclasses.dataclass(frozen=True)
class OnGrid(Patterned):
  """Softmax attention within a pattern on a grid; tokens before the grid read all and are read by all.

  Honours every mask and a bias. A pattern that declares `max_offset` costs time O(T·W) for a span W of positions, and
  a ring of W to decode, where the grid is known from the fields; the others are masked maps with O(S) to decode.
  """

  field: ClassVar[str] = "columns"  # the field that gives the grid where positions do not
  axes: ClassVar[tuple[str, ...]] = ("rows", "columns")  # of the grid, in messages

  @abc.abstractmethod
  def sizes(self, positions: Positions) -> tuple[int, ...] | None:
    """The grid's sizes but the first, from the fields or else from the positions; None where neither has them."""

  @abc.abstractmethod
  def inside(self, i: Coordinates, j: Coordinates) -> Bool[Array, "..."]:
    """The pattern: which tokens at coordinates j the query at coordinates i may read."""

  def max_offset(self) -> int | None:
    """The largest difference of a query's and its keys' coordinates along any axis; None = unbounded."""
    return None

  def grid(self, positions: Positions) -> Grid:
    """The grid of a call; raises Unsupported where neither the variant nor the positions have one."""
    sizes = self.sizes(positions)
    if sizes is None:
      name, shape = type(self).__name__, ", ".join(self.axes)
      raise Unsupported(f"{name} needs a grid: set its field '{self.field}', or pass positions with grid=({shape})")
    return Grid(sizes, positions.extra)

  def claims(self) -> Claims:
    claims = super().claims()
    return claims if self.span() is None else dataclasses.replace(claims, time_exponent=1, state_exponent=0)

  def span(self) -> int | None:
    return self.span_at(Positions())

  def span_at(self, positions: Positions) -> int | None:
    offset, sizes = self.max_offset(), self.sizes(positions)
    return None if offset is None or sizes is None or positions.extra else Grid(sizes).span(offset)

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    return self._within(self.grid(Positions()), i, j)

  def mask_mod(self, params: Params, i: Array, j: Array, positions: Positions) -> Bool[Array, "..."]:
    return self._within(self.grid(positions), i, j)

  def _within(self, grid: Grid, i: Array, j: Array) -> Bool[Array, "..."]:
    """The pattern at positions; tokens before the grid read all and are read by all."""
    inside = self.inside(grid.coordinates(i), grid.coordinates(j))
    return inside | (i < grid.extra) | (j < grid.extra) if grid.extra else inside


@dataclasses.dataclass(frozen=True)
class Gridded(OnGrid):
  """A pattern on rows and columns, or on any axes that the positions' grid has."""

  columns: int = dataclasses.field(default=0, kw_only=True)  # of the grid; 0 = as `Positions.grid` says

  def __post_init__(self):
    super().__post_init__()
    if self.columns < 0:
      raise ValueError(f"columns={self.columns} must be at least 1, or 0 to take the grid of the positions")

  def sizes(self, positions: Positions) -> tuple[int, ...] | None:
    if self.columns:
      return (self.columns,)
    return None if positions.grid is None else positions.grid[1:]


def same_window(i: Coordinates, j: Coordinates, size: int, shift: int = 0) -> Bool[Array, "..."]:
  """The pairs in one window: windows have `size` along each axis, the first border at `shift`."""
  inside: Any = True
  for a, b in zip(i, j, strict=True):
    inside = inside & ((a - shift) // size == (b - shift) // size)
  return inside
