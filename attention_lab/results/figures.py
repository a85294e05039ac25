"""Static figures by matplotlib: lines with intervals, ranked intervals, points with names."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from attention_lab.results.figure_files import (
  AXIS,
  GHOST,
  INK,
  PAPER,
  REFERENCE,
  SOFT,
  colour,
  new,
  styled,
  symbol,
)
from attention_lab.results.figure_labels import Line, name_ends, name_points, settled, shorten

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

BREAK = (math.nan,) * 4  # a point between two lines that are drawn as one
FEW = 6  # lines that can be told apart in one plot


@dataclasses.dataclass(frozen=True)
class Axis:
  """An axis: its title, its ends (None = from the data), whether it is logarithmic, and how its ticks are written."""

  title: str
  limits: tuple[float, float] | None = None
  log: bool = False
  ticks: Sequence[float] | None = None
  text: Callable[[float], str] | None = None


@dataclasses.dataclass(frozen=True)
class Rank:
  """A row of ranked intervals: its value, interval and single scores, and how far it is behind the best.

  `gap` is (low, mean, high) of the 95 % interval, `wide` (low, high) of the one corrected for all pairs; a row without
  `number` is a reference: a value that nothing was trained for.
  """

  name: str
  value: float
  number: int | None = None
  interval: tuple[float, float] | None = None
  scores: Sequence[float] = ()
  gap: tuple[float, float, float] | None = None
  wide: tuple[float, float] | None = None
  word: str = ""


def plot(
  lines: Sequence[Line],
  x: Axis,
  y: Axis,
  *,
  references: Mapping[str, float] = {},
  stairs: Sequence[tuple[float, float]] = (),
  bands: bool = False,
) -> "Figure":
  """Lines in one plot, their names at the ends: of points with tags the tags beside them.

  `references` are named values of y, dotted lines across; `stairs` the corners (x, y) of the best y that can be had up
  to an x; with `bands` intervals are bands along a line, and not bars at its points.
  """
  with styled():
    figure = new(6.4, 4.0)
    axes = figure.add_subplot()
    _frame(axes, x, y, lines, references)
    _stairs(axes, stairs, axes.get_xlim(), axes.get_ylim())
    for line in lines:
      _draw(axes, line, bands)
    ends = [_end(line) for line in lines if not line.tags]
    ends += [(name, axes.get_xlim()[1], value, REFERENCE) for name, value in references.items()]
    name_ends([(axes, ends)])
    name_points(axes, lines, stairs)
    settled(figure)
    return figure


def panels(
  groups: Mapping[str, Sequence[Line]],
  x: Axis,
  y: Axis,
  *,
  references: Mapping[str, float] = {},
  stairs: Sequence[tuple[float, float]] = (),
  bands: bool = False,
) -> "Figure":
  """Small plots with the same axes, one for each group of lines, the lines of the other groups in grey behind them.

  A group's lines have its colour, and their own names at their ends if they are several. Arguments as of `plot`.
  """
  with styled():
    columns = next((n for n in (4, 5, 3) if len(groups) % n == 0), 4) if len(groups) > 4 else max(len(groups), 1)
    rows = math.ceil(len(groups) / columns)
    figure = new(2.6 * columns, 0.45 + 1.85 * rows)
    every = [line for lines in groups.values() for line in lines]
    grid = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(groups) :]:
      axes.set_visible(False)
    for index, (axes, (name, lines)) in enumerate(zip(grid.flat, groups.items(), strict=False)):
      _frame(axes, dataclasses.replace(x, title=""), dataclasses.replace(y, title=""), every, references)
      if index + columns >= len(groups):
        axes.tick_params(labelbottom=True)
      axes.set_title(shorten(name, 24), loc="left", color=colour(lines[0].number), fontweight="bold")
      others = [point for line in every if line not in lines for point in (*line.points, BREAK)]
      axes.plot([point[0] for point in others], [point[2] for point in others], color=GHOST, linewidth=0.9, zorder=1.5)
      axes.tick_params(length=0)
      _stairs(axes, stairs, axes.get_xlim(), axes.get_ylim())
      for line in lines:
        _draw(axes, line, bands)
    figure.supxlabel(x.title, fontsize=9, color=SOFT)
    figure.supylabel(y.title, fontsize=9, color=SOFT)
    pairs = list(zip(grid.flat, groups.values(), strict=False))
    several = [(axes, [_end(line) for line in lines]) for axes, lines in pairs if len(lines) > 1]
    name_ends(several, 1.03)
    for axes, lines in pairs:
      name_points(axes, lines, stairs)
    settled(figure)
    return figure


def scatter(plots: Sequence[tuple[Axis, Sequence[Line], Sequence[tuple[float, float]]]], y: Axis) -> "Figure":
  """Plots of named points side by side, each (x axis, points as lines with tags, stairs), all with the same y."""
  with styled():
    columns = min(len(plots), 3 if len(plots) != 4 else 2)
    rows = math.ceil(len(plots) / columns)
    figure = new(6.4 if columns == 1 else 4.0 * columns, 0.3 + 3.4 * rows)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axes in list(grid.flat)[len(plots) :]:
      axes.set_visible(False)
    for index, (axes, (x, lines, stairs)) in enumerate(zip(grid.flat, plots, strict=False)):
      _frame(axes, x, y if index % columns == 0 else dataclasses.replace(y, title=""), lines, {})
      _stairs(axes, stairs, axes.get_xlim(), axes.get_ylim())
      for line in lines:
        _draw(axes, line, bands=False)
    for axes, (_, lines, stairs) in zip(grid.flat, plots, strict=False):
      name_points(axes, lines, stairs)
    settled(figure)
    return figure


def ranking(ranks: Sequence[Rank], x: Axis, gap: Axis | None = None) -> "Figure":
  """Ranked rows, best on top: the value with its interval and single scores, and beside it how far it is behind."""
  with styled():
    height = 0.27 if len(ranks) < 20 else 0.215
    figure = new(10.4 if gap else 6.4, 0.9 + height * len(ranks))
    grid = figure.subplots(1, 2 if gap else 1, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.06})[0]
    axes = grid[0]
    _scale(axes, x, "x", [end for rank in ranks for end in (rank.value, *(rank.interval or ()))])
    axes.set_ylim(len(ranks) - 0.4, -0.6)
    axes.set_yticks(range(len(ranks)), [shorten(rank.name) for rank in ranks], color=INK)
    for label, rank in zip(axes.get_yticklabels(), ranks, strict=True):
      label.set_color(REFERENCE if rank.number is None else INK)
    for row, rank in enumerate(ranks):
      _rank(axes, row, rank)
    for side in grid:
      side.grid(axis="x")
      side.grid(visible=False, axis="y")
      side.spines["left"].set_visible(False)
      side.tick_params(axis="y", length=0)
    if gap:
      _gaps(grid[1], ranks, gap)
    settled(figure)
    return figure


def matrix(rows: Mapping[str, int], plots: Sequence[tuple[str, Axis, Mapping[str, Rank]]]) -> "Figure":
  """One narrow plot for each task side by side, all with the same rows: {name: number} from the top.

  plots: (title, axis of x, {name: value and interval}); a rank's `word` "best" fills its marker, others are hollow.
  """
  with styled():
    columns = min(len(plots), 7)
    lines = math.ceil(len(plots) / columns)
    figure = new(10.4, lines * (0.75 + 0.22 * len(rows)))
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False, gridspec_kw={"wspace": 0.08})
    for axes in list(grid.flat)[len(plots) :]:
      axes.set_visible(False)
    order = list(rows)
    for axes, (title, x, ranks) in zip(grid.flat, plots, strict=False):
      _scale(axes, x, "x", [end for rank in ranks.values() for end in (rank.value, *(rank.interval or ()))])
      axes.locator_params(axis="x", nbins=3)
      axes.set_title("\n".join(title.split(": ", 1)), loc="left", fontsize=8.5)
      axes.set_ylim(len(order) - 0.4, -0.6)
      axes.set_yticks(range(len(order)), [shorten(name) for name in order])
      axes.tick_params(axis="y", length=0, labelcolor=INK)
      axes.spines["left"].set_visible(False)
      axes.grid(axis="both")
      for name, rank in ranks.items():
        _rank(axes, order.index(name), dataclasses.replace(rank, scores=()), hollow=rank.word != "best")
    settled(figure)
    return figure


def _end(line: Line) -> tuple[str, float, float, str]:
  """The name at the end of a line, for `name_ends`."""
  return shorten(line.name), line.points[-1][0], line.points[-1][2], colour(line.number)


def _frame(axes: "Axes", x: Axis, y: Axis, lines: Sequence[Line], references: Mapping[str, float]) -> None:
  points = [point for line in lines for point in line.points]
  _scale(axes, x, "x", [point[0] for point in points])
  _scale(axes, y, "y", [end for point in points for end in point[1:]] + list(references.values()))
  for value in references.values():
    axes.axhline(value, color=REFERENCE, linewidth=1, linestyle=(0, (2, 3)), zorder=1)


def _scale(axes: "Axes", axis: Axis, which: str, values: Sequence[float]) -> None:
  """Ends, ticks and title of one axis."""
  from matplotlib import ticker

  target = getattr(axes, f"{which}axis")
  if axis.log:
    getattr(axes, f"set_{which}scale")("log")
  getattr(axes, f"set_{which}lim")(axis.limits or padded(values, log=axis.log))
  getattr(axes, f"set_{which}label")(axis.title)
  if axis.ticks is not None:
    target.set_major_locator(ticker.FixedLocator(list(axis.ticks)))
  elif axis.log:
    low, high = getattr(axes, f"get_{which}lim")()
    subs = (1.0,) if high / low > 1e3 else (1.0, 3.0) if high / low > 30 else (1.0, 2.0, 5.0)
    target.set_major_locator(ticker.LogLocator(subs=subs))
  if axis.log:
    target.set_minor_locator(ticker.NullLocator())
  if axis.text or axis.log:
    text = axis.text or "{:g}".format
    target.set_major_formatter(ticker.FuncFormatter(lambda value, _: text(value)))


def padded(values: Sequence[float], share: float = 0.06, log: bool = False) -> tuple[float, float]:
  """Ends of an axis that holds all values with a margin on both sides, also when they are equal."""
  low, high = min(values), max(values)
  if log:
    margin = max((high / low) ** share, 1.15)
    return low / margin, high * margin
  margin = (high - low) * share or abs(high) * share or 1.0
  return low - margin, high + margin


def _draw(axes: "Axes", line: Line, bands: bool) -> None:
  xs, lows, values, highs = zip(*line.points, strict=True)
  paint = colour(line.number)
  if line.joined:
    axes.plot(xs, values, color=paint, linewidth=1.8, zorder=3)
  if bands:
    axes.fill_between(xs, lows, highs, color=paint, alpha=0.15, linewidth=0, zorder=2)
    axes.plot(xs[-1:], values[-1:], symbol(line.number), color=paint, markersize=5, zorder=4)
    return
  axes.vlines(xs, lows, highs, color=paint, linewidth=1.3, alpha=0.75, zorder=2)
  for hollow in (False, True):
    chosen = [index for index in range(len(xs)) if (line.hollow[index] if line.hollow else False) == hollow]
    face = PAPER if hollow else paint
    axes.plot(
      [xs[i] for i in chosen],
      [values[i] for i in chosen],
      symbol(line.number),
      linestyle="none",
      markersize=6,
      markerfacecolor=face,
      markeredgecolor=paint,
      markeredgewidth=1.3,
      zorder=4,
    )


def _stairs(axes: "Axes", corners: Sequence[tuple[float, float]], xs: Sequence[float], ys: Sequence[float]) -> None:
  """The staircase, from the worse end of y below its first corner to the right edge."""
  if corners:
    worst = ys[0] if corners[-1][1] >= corners[0][1] else ys[1]
    path = [(corners[0][0], worst), *corners, (xs[1], corners[-1][1])]
    axes.plot(*zip(*path, strict=True), color=INK, linewidth=1.1, alpha=0.75, zorder=1.8)


def _rank(axes: "Axes", row: int, rank: Rank, hollow: bool = False) -> None:
  if rank.number is None:
    axes.axvline(rank.value, color=REFERENCE, linewidth=1, linestyle=(0, (2, 3)), zorder=1)
    axes.plot(rank.value, row, "D", color=PAPER, markeredgecolor=REFERENCE, markersize=5, zorder=4)
    return
  paint = colour(rank.number)
  if rank.interval:
    axes.hlines(row, *rank.interval, color=paint, linewidth=4.5, alpha=0.45, zorder=2)
  axes.vlines(rank.scores, row - 0.28, row + 0.28, color=paint, linewidth=0.8, alpha=0.6, zorder=2.5)
  face = PAPER if hollow else paint
  axes.plot(rank.value, row, symbol(rank.number), color=face, markeredgecolor=paint, markersize=5.5, zorder=4)


def _gaps(axes: "Axes", ranks: Sequence[Rank], gap: Axis) -> None:
  """How far each row is behind the best: thick the 95 % interval, thin the corrected one; the standing at the right."""
  ends = [end for rank in ranks for end in rank.gap or ()]
  _scale(axes, gap, "x", [*ends, 0.0])
  axes.axvline(0, color=AXIS, linewidth=1.2, zorder=1)
  low, high = axes.get_xlim()
  for row, rank in enumerate(ranks):
    if rank.gap:
      paint = colour(rank.number or 0)
      if rank.wide:
        axes.hlines(row, max(rank.wide[0], low), min(rank.wide[1], high), color=paint, linewidth=1.2, zorder=2)
      axes.hlines(row, rank.gap[0], rank.gap[2], color=paint, linewidth=4.5, alpha=0.45, zorder=2)
      axes.plot(rank.gap[1], row, symbol(rank.number or 0), color=paint, markersize=5.5, zorder=4)
    if rank.word:
      shade = SOFT if rank.number is None else INK
      axes.text(1.02, row, rank.word, transform=axes.get_yaxis_transform(), va="center", color=shade)
