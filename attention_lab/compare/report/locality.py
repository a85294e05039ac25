"""Score against receptive field: whether a task asks for more than its neighbourhood.

Of each receptive field the row with the best mean stands for what can be had within it. Rows of several mechanisms
differ in more than their range, so that softmax and its windows, which do not, are asked alone too.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from attention_lab.compare.report import families, frontiers, labels, pareto, plots
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, statistics, svg

LONGER = "the task needs long range"
FEWEST = 3  # receptive fields that make a picture
SHARE = 0.95  # of the gain over chance
LOCAL, LONG = 1 / 8, 1 / 2  # of the length: up to the first a task is local, beyond the second it needs long range
WINDOWS = ("softmax", "local(window=#)")  # one mechanism, by its range alone; # is a number
CAPTION = (
  "Test score with its 95 % interval; the receptive field is how many positions the output at one position can depend "
  "on through all layers."
)


@dataclasses.dataclass(frozen=True)
class Probe:
  """The rows with a known receptive field (positions), and what they say; `length` is the table's, if recorded.

  `enough` is the smallest field whose best row has 95 % of the gain over chance that the largest field's best row has;
  `like` the smallest from which on no field's best row is told from the largest one's. None where it cannot be said.
  """

  fields: tuple[tuple[int, Entry], ...]
  length: int
  enough: int | None
  like: int | None
  learned: bool


def probe(table: Table) -> Probe | None:
  """What a table tells about its task's range; None with fewer than three receptive fields."""
  return _probe(table, table.scored)


def _probe(table: Table, entries: Iterable[Entry]) -> Probe | None:
  known = [(int(field), entry) for entry in entries if (field := entry.cost("receptive_field"))]
  known = sorted(known, key=lambda one: one[0])
  sizes = sorted({field for field, _ in known})
  if len(sizes) < FEWEST:
    return None
  sign = 1 if table.higher_is_better else -1
  best = {size: max((e for f, e in known if f == size), key=lambda e: sign * e.interval.mean) for size in sizes}
  chance = table.references.get("chance")
  learned = chance is None or _above(best[sizes[-1]], chance, sign)
  enough = like = None
  if learned:
    enough = _enough(best, sizes, chance)
    like = _like(best, sizes, table.higher_is_better)
  return Probe(tuple(known), _length(table, sizes[-1]), enough, like, learned)


def sentences(table: Table) -> list[str]:
  """What the probe says of the task, in words; none without a probe."""
  found = probe(table)
  if not found:
    return []
  largest = found.fields[-1][0]
  if not found.learned:
    return [f"No row with the largest receptive field ({largest} positions) is told from chance: nothing can be said."]
  said = []
  if found.enough is not None:
    reached = f"{SHARE:.0%} of the gain over chance is reached at {found.enough} of {found.length} positions"
    said.append(f"{reached}{_judged(found, table)}.")
  if found.like == largest:
    said.append(f"Every smaller receptive field is told from the largest one, {largest} positions.")
  elif found.like == found.fields[0][0]:
    said.append(f"Not even the smallest receptive field, {found.like} positions, is told to be worse than the largest.")
  elif found.like is not None:
    said.append(f"From {found.like} positions on no receptive field is told to be worse than the largest, {largest}.")
  if largest < found.length:
    said.append(f"No row reads more than {largest} of {found.length} positions, so longer range was not tried.")
  return [text.replace("%", " %", 1) for text in said]


def figure(table: Table, numbers: plots.Numbers) -> plots.Figure | None:
  """Score against receptive field with chance and controls; None without a probe."""
  found = probe(table)
  if not found:
    return None
  points = [pareto.Point(entry, float(field)) for field, entry in found.fields]
  picture = _picture(points, table, numbers)
  return plots.Figure("Locality", CAPTION, picture, sentences(table))


def _picture(points: Sequence[pareto.Point], table: Table, numbers: plots.Numbers) -> str:
  plot = _frame(points, table)
  shifts = _shifts(points)
  places = {
    one.entry.attention: (plot.column(one.cost) + shift, plot.row(one.mean))
    for one, shift in zip(points, shifts, strict=True)
  }
  boxes = [
    (box[0] + shift, box[1], box[2] + shift, box[3])
    for point, shift in zip(points, shifts, strict=True)
    for box in frontiers.occupied(plot, point, table)
  ]
  references, taken = plots.named(plot, table, boxes)
  joined = _joined(points)
  lines = [[places[name] for name in family.numbers] for family in joined]
  axes = svg.axes(plot, "receptive field, positions (log)", formatting.count, plots.ticked(plot.y))
  parts = [axes, plots.references(plot, table), references]
  parts += [
    svg.path(line, "join", numbers[next(iter(family.numbers))]) for line, family in zip(lines, joined, strict=True)
  ]
  for point, shift in zip(points, shifts, strict=True):
    mark = frontiers.point_mark(plot, point, table, numbers[point.entry.attention])
    parts.append(f'<g transform="translate({shift:.1f} 0)">{mark}</g>')
  short = {name: number for family in joined for name, number in list(family.numbers.items())[:-1] if number}
  within = [point.entry.attention for point in points if point.cost < points[-1].cost]
  named = [labels.Label(places[name], short.get(name, name), numbers[name]) for name in within]
  room = dataclasses.replace(plot, width=plot.width - plot.right, right=0.0)
  parts.append(labels.draw(room, named, boxes + taken, lines))
  ends = {point.entry.attention: (point.mean, numbers[point.entry.attention]) for point in points[len(within) :]}
  return svg.figure(
    plot, [*parts, *svg.end_labels(plot, ends)], f"{table.primary} against receptive field, {table.task}"
  )


def _joined(points: Sequence[pareto.Point]) -> list[families.Family]:
  """The families whose rows differ in their receptive fields."""
  fields = {point.entry.attention: point.cost for point in points}
  return [family for family in families.find(fields) if len({fields[name] for name in family.numbers}) > 1]


def _frame(points: Sequence[pareto.Point], table: Table) -> svg.Frame:
  """Room at the right for the names of the rows with the largest field; ticks at the fields."""
  bounds = [(point.cost, *plots.clipped(point.entry, table)) for point in points]
  wide = max(svg.extent(svg.shorten(point.entry.attention)) for point in points if point.cost == points[-1].cost)
  plot = dataclasses.replace(frontiers.frame(bounds, table, log=True), right=24 + wide)
  ticks = _apart(sorted({point.cost for point in points}), plot)
  return dataclasses.replace(plot, x=svg.Marked(plot.x.low, plot.x.high, True, tuple(ticks)))


def _shifts(points: Sequence[pareto.Point]) -> list[float]:
  """Pixels by which the rows of one field are set beside each other, so that their whiskers are seen."""
  found = []
  for place, point in enumerate(points):
    same = [other for other, one in enumerate(points) if one.cost == point.cost]
    step = min(7.0, 42.0 / max(len(same) - 1, 1))
    found.append((same.index(place) - (len(same) - 1) / 2) * step)
  return found


def _apart(ticks: Sequence[float], plot: svg.Frame) -> list[float]:
  """Ticks with room for their numbers; the largest is kept."""
  kept: list[float] = []
  for value in reversed(ticks):
    if not kept or plot.column(kept[-1]) - plot.column(value) > 34:
      kept.append(value)
  return kept[::-1]


def _enough(best: Mapping[int, Entry], sizes: Sequence[int], chance: float | None) -> int | None:
  if chance is None:
    return None
  gain = best[sizes[-1]].interval.mean - chance
  return next(size for size in sizes if (best[size].interval.mean - chance) / gain >= SHARE)


def _like(best: Mapping[int, Entry], sizes: Sequence[int], higher: bool) -> int | None:
  largest = best[sizes[-1]]
  step = statistics.step([score for entry in best.values() for score in entry.scores.values()])
  found = []
  for size in sizes[:-1]:
    if not largest.scores.keys() & best[size].scores.keys():
      return None
    found.append(statistics.paired(largest.scores, best[size].scores, higher, step))
  if any(one.p is None for one in found):
    return None
  told = [p < statistics.ALPHA and one.interval.mean > 0 for p, one in zip(_holm(found), found, strict=True)]
  last = max((place for place, one in enumerate(told) if one), default=-1)
  return sizes[last + 1]


def _holm(found: Sequence[statistics.Difference]) -> list[float]:
  return statistics.holm([one.p for one in found])


def _above(entry: Entry, chance: float, sign: int) -> bool:
  edge = entry.interval.low if sign > 0 else entry.interval.high
  return sign * (edge - chance) > 0


def _length(table: Table, largest: int) -> int:
  recorded = {row["config"].get("config.data.length") for row in table.done if row.get("config")}
  known = [int(value) for value in recorded if isinstance(value, int) and value > 0]
  return max([largest, *known])


def _judged(found: Probe, table: Table) -> str:
  """What the task is called; long-range only if rows that differ in nothing but their range do not deny it."""
  called = _called(found)
  alone = _probe(table, [entry for entry in table.scored if families.NUMBER.sub("#", entry.attention) in WINDOWS])
  if called != LONGER or alone in (None, found) or alone.enough is None:
    return f": {called}"
  if _called(alone) == LONGER:
    return f": {called}, and softmax and its windows alone, which differ in nothing but their range, say so too"
  return (
    f", but softmax and its windows alone, which differ in nothing but their range, reach theirs at {alone.enough}. "
    "What is gained beyond is another mechanism's, and the task is not shown to need long range"
  )


def _called(found: Probe) -> str:
  share = found.enough / found.length
  if share > LONG:
    return LONGER
  kind = "local" if share <= LOCAL else "of middle range"
  if found.like is not None and found.like > found.enough:
    return f"the task is mostly {kind}, and the rest of the gain needs more"
  return f"the task is {kind}"
