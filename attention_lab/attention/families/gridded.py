"""Patterns on a grid: tokens in row-major order, class and register tokens in front of them."""

import abc
import dataclasses
import math
from typing import ClassVar, NamedTuple

from jaxtyping import Array, Bool

from attention_lab.attention.base import Claims, Params, Unsupported
from attention_lab.attention.families.patterned import Patterned
from attention_lab.attention.positions import Positions

Coordinates = tuple[Array, ...]  # row, column; or frame, row, column


class Grid(NamedTuple):
  """The grid's sizes, all but the first, which is not bounded; and how many tokens come before it."""

  sizes: tuple[int, ...]
  extra: int = 0

  def coordinates(self, positions: Array) -> Coordinates:
    """Row, column (or frame, row, column) of tokens on the grid."""
    place, axes = positions - self.extra, []
    for size in reversed(self.sizes):
      axes.append(place % size)
      place = place // size
    return (place, *reversed(axes))

  def span(self, apart: int) -> int:
    """W such that tokens whose coordinates differ by at most `apart` along each axis lie within |i − j| < W."""
    steps = [math.prod(self.sizes[axis:]) for axis in range(len(self.sizes) + 1)]
    bounds = (apart, *(min(apart, size - 1) for size in self.sizes))
    return 1 + sum(step * bound for step, bound in zip(steps, bounds, strict=True))


@dataclasses.dataclass(frozen=True)
class OnGrid(Patterned):
  """Softmax attention within a pattern on a grid; tokens before the grid read all and are read by all.

  Honours every mask and a bias. A pattern that declares `apart` costs time O(T·W) for a span W of positions, and a
  ring of W to decode, where the grid is known from the fields; the others are masked maps with O(S) to decode.
  """

  field: ClassVar[str] = "columns"  # what gives the grid where positions do not
  axes: ClassVar[tuple[str, ...]] = ("rows", "columns")

  @abc.abstractmethod
  def sizes(self, positions: Positions) -> tuple[int, ...] | None:
    """The grid's sizes but the first, from the fields or else from the positions; None where neither has them."""

  @abc.abstractmethod
  def inside(self, i: Coordinates, j: Coordinates) -> Bool[Array, "..."]:
    """Which tokens at the coordinates j the query at i may read."""

  def apart(self) -> int | None:
    """The most by which coordinates of a pair in the pattern differ along any axis; None = unbounded."""
    return None

  def grid(self, positions: Positions) -> Grid:
    """The grid that is meant; Unsupported where neither the variant nor the positions have one."""
    sizes = self.sizes(positions)
    if sizes is None:
      name, shape = type(self).__name__, ", ".join(self.axes)
      raise Unsupported(f"{name} needs a grid: set its field '{self.field}', or pass positions with grid=({shape})")
    return Grid(sizes, positions.extra)

  def claims(self) -> Claims:
    return (
      super().claims()
      if self.span() is None
      else dataclasses.replace(super().claims(), time_exponent=1, state_exponent=0)
    )

  def span(self) -> int | None:
    return self.reach(Positions())

  def reach(self, positions: Positions) -> int | None:
    apart, sizes = self.apart(), self.sizes(positions)
    return None if apart is None or sizes is None or positions.extra else Grid(sizes).span(apart)

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    return self._within(self.grid(Positions()), i, j)

  def allowed(self, params: Params, i: Array, j: Array, positions: Positions) -> Bool[Array, "..."]:
    return self._within(self.grid(positions), i, j)

  def _within(self, grid: Grid, i: Array, j: Array) -> Bool[Array, "..."]:
    inside = self.inside(grid.coordinates(i), grid.coordinates(j))
    return inside | (i < grid.extra) | (j < grid.extra) if grid.extra else inside


@dataclasses.dataclass(frozen=True)
class Gridded(OnGrid):
  """A pattern on rows and columns, or on any axes that the positions' grid has."""

  columns: int = dataclasses.field(default=0, kw_only=True)  # of the grid; 0 = as `Positions.grid` says

  def __post_init__(self):
    if self.columns < 0:
      raise ValueError(f"columns={self.columns} must be at least 1, or 0 to take the grid of the positions")

  def sizes(self, positions: Positions) -> tuple[int, ...] | None:
    if self.columns:
      return (self.columns,)
    return None if positions.grid is None else positions.grid[1:]


def same_window(i: Coordinates, j: Coordinates, size: int, shift: int = 0) -> Bool[Array, "..."]:
  """Which pairs lie in one window, of `size` along each axis, the first border at `shift`."""
  inside = True
  for a, b in zip(i, j, strict=True):
    inside = inside & ((a - shift) // size == (b - shift) // size)
  return inside
