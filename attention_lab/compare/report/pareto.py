"""Quality against a cost: which rows no other row beats at no more cost, and which of the others are as good for all
that the seeds tell.

A row dominates another if it costs no more and has the better mean, or as good a mean at less cost.
"""

import dataclasses
from collections.abc import Callable, Sequence

from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, statistics

DIFFERENT = 1.05  # the largest cost over the smallest, below which a cost is no axis
LOGARITHMIC = 4.0  # from which on the axis is logarithmic


@dataclasses.dataclass(frozen=True)
class Axis:
  """A cost: its name in an entry, the title of an axis, its name in a sentence, its unit, how a value is written."""

  name: str
  title: str
  label: str
  unit: float
  shown: Callable[[float], str]

  def __call__(self, entry: Entry) -> float | None:
    """The cost of a row in its own unit; None where it is not known."""
    value = entry.time_ratio if self.name == "time_ratio" else entry.cost(self.name)
    return None if value is None else value / self.unit


@dataclasses.dataclass(frozen=True)
class Point:
  """A row and its cost, in the unit of the axis."""

  entry: Entry
  cost: float

  @property
  def mean(self) -> float:
    return self.entry.score.mean


@dataclasses.dataclass(frozen=True)
class Front:
  """The rows of a table on one axis: `best` those that none dominates, by cost; `near` those that no row that dominates
  them is told apart from (p ≥ 0.05, by Holm over all pairs in which one dominates); `judged` is False with too few
  seeds to tell.
  """

  axis: Axis
  points: tuple[Point, ...]
  best: tuple[Point, ...]
  near: tuple[Point, ...]
  judged: bool


AXES = (
  Axis(
    "state_bytes",
    "decoding state, KiB a sequence",
    "decoding state",
    2.0**10,
    lambda x: f"{x:.3g}\N{NO-BREAK SPACE}KiB",
  ),
  Axis("time_ratio", "step time, {baseline} = 1", "step time", 1.0, formatting.ratio),
  Axis(
    "peak_bytes",
    "peak memory of the training step, MiB",
    "peak memory",
    2.0**20,
    lambda x: f"{x:.3g}\N{NO-BREAK SPACE}MiB",
  ),
  Axis("parameters", "parameters", "parameters", 1.0, formatting.thousands),
  Axis("flops_per_token", "training FLOPs per token", "FLOPs per token", 1.0, formatting.thousands),
)


def fronts(table: Table) -> list[Front]:
  """The fronts of a table, one for each cost that at least two of its rows have and in which they differ."""
  drawn = []
  for axis in AXES:
    points = tuple(Point(entry, cost) for entry in table.scored if (cost := axis(entry)) is not None)
    costs = [point.cost for point in points]
    if len(points) > 1 and max(costs) > DIFFERENT * min(costs):
      drawn.append(_front(axis, points, table.higher_is_better))
  return drawn


def stairs(front: Front) -> list[tuple[float, float]]:
  """Corners (cost, score) of the best mean that can be had at a cost, from the cheapest row to the dearest best one."""
  corners: list[tuple[float, float]] = []
  for point in front.best:
    corners += [(point.cost, corners[-1][1])] if corners else []
    corners.append((point.cost, point.mean))
  return corners


def sentence(front: Front, digits: int) -> str:
  """The front in words; names of rows stand in `backticks`."""
  axis = front.axis

  def listed(points: Sequence[Point]) -> str:
    return formatting.joined(
      f"`{point.entry.attention}` ({axis.shown(point.cost)}, {formatting.score(point.mean, digits)})"
      for point in points
    )

  text = f"{axis.label[0].upper()}{axis.label[1:]}: not beaten by any row that costs no more: {listed(front.best)}."
  if front.near:
    text += f" Not shown by these seeds to lie behind the front: {listed(front.near)}."
  return text if front.judged else text + " Too few seeds to say more than that of the means."


def dominates(point: Point, other: Point, higher: bool) -> bool:
  """Whether a row costs no more than another and is better, or costs less and is as good."""
  gap = (point.mean - other.mean) * (1 if higher else -1)
  return point.cost <= other.cost and gap >= 0 and (gap > 0 or point.cost < other.cost)


def _front(axis: Axis, points: Sequence[Point], higher: bool) -> Front:
  pairs = [(point, other) for other in points for point in points if dominates(point, other, higher)]
  beaten = {other.entry.attention for _, other in pairs}
  best = sorted((point for point in points if point.entry.attention not in beaten), key=lambda point: point.cost)
  told = _told(pairs, higher, statistics.step([score for p in points for score in p.entry.finite.values()]))
  near = () if told is None else tuple(p for p in points if p.entry.attention in beaten - told)
  return Front(axis, tuple(points), tuple(best), near, told is not None)


def _told(pairs: Sequence[tuple[Point, Point]], higher: bool, step: float) -> set[str] | None:
  """The rows that some row dominates beyond the noise of the seeds; None where a pair cannot be tested."""
  names, p_values = [], []
  for point, other in pairs:
    if not point.entry.scores.keys() & other.entry.scores.keys():
      return None
    gap = statistics.paired(point.entry.finite, other.entry.finite, higher, step)
    if gap.p is None:
      return None
    names.append(other.entry.attention)
    p_values.append(gap.p)
  corrected = statistics.holm(p_values) if p_values else []
  return {name for name, p in zip(names, corrected, strict=True) if p < statistics.ALPHA}
