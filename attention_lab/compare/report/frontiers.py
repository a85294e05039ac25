"""The pictures of quality against cost: a staircase along the rows that none dominates, a line along each family."""

import dataclasses
import itertools

from attention_lab.compare.report import columns, families, labels, pareto, plots
from attention_lab.compare.report.tables import Table
from attention_lab.results import svg

TITLE = "Quality against cost"
WORDS = (
  "Staircase and filled marks: no row costs less and scores better. Hollow: some row does. Whisker: 95 % interval of "
  "the test score; costs have none."
)
JOINED = "Thin lines join rows that differ in the number written beside them."
CROWDED = "Thin lines join rows that differ in one number alone; the largest bears their name."
MANY = 15  # rows of a picture, from which on a family is named once
MARK = 5.0


def figures(table: Table, numbers: plots.Numbers) -> list[plots.Figure]:
  """A picture for each front of a table, its rows listed in words beneath."""
  digits = columns.digits(table)
  return [
    plots.Figure(
      f"{front.axis.words[0].upper()}{front.axis.words[1:]}",
      "",
      _picture(front, table, numbers, _joined(front)),
      [pareto.sentence(front, digits)],
    )
    for front in pareto.fronts(table)
  ]


def words(table: Table) -> str:
  """How to read the pictures of a table."""
  joined = [front for front in pareto.fronts(table) if _joined(front)]
  crowded = any(len(front.points) >= MANY for front in joined)
  return f"{WORDS} {CROWDED if crowded else JOINED}" if joined else WORDS


def _joined(front: pareto.Front) -> list[tuple[families.Family, list[pareto.Point]]]:
  """The families with at least two rows in the picture, and those rows by cost."""
  points = {point.entry.attention: point for point in front.points}
  found = []
  for family in families.find(points):
    members = sorted((points[name] for name in family.numbers), key=lambda point: point.cost)
    found.append((family, members))
  return found


def frame(points: list[tuple[float, float, float]], table: Table, log: bool) -> svg.Frame:
  """The frame of scores (x, low, high)."""
  xs = [x for x, _, _ in points]
  edges = [edge for _, low, high in points for edge in (low, high)]
  return svg.Frame(svg.padded(xs, 0.1, log=log), plots.with_references(edges, table, 0.1))


def _picture(front: pareto.Front, table: Table, numbers: plots.Numbers, joined) -> str:
  costs = [point.cost for point in front.points]
  log = min(costs) > 0 and max(costs) >= pareto.LOGARITHMIC * min(costs)
  plot = frame([(point.cost, *plots.clipped(point.entry, table)) for point in front.points], table, log)
  title = front.axis.title.format(baseline=table.baseline) + (" (log)" if log else "")
  lines = [[plot.at(point.cost, point.mean) for point in members] for _, members in joined]
  stairs = _stairs(plot, front, table.higher_is_better)
  parts = [svg.axes(plot, title, plots.short, plots.ticked(plot.y)), plots.references(plot, table)]
  boxes = [box for point in front.points for box in occupied(plot, point, table)]
  references, taken = plots.named(plot, table, [*boxes, *_risers(stairs)])
  parts.append(references)
  parts.append(f'<path d="M{"L".join(f"{x:.1f} {y:.1f}" for x, y in stairs)}" class="stairs"/>')
  parts += [
    svg.path(line, "join", numbers[members[0].entry.attention])
    for line, (_, members) in zip(lines, joined, strict=True)
  ]
  named = []
  best = {point.entry.attention for point in front.best}
  for point in front.points:
    name = point.entry.attention
    parts.append(point_mark(plot, point, table, numbers[name], "mark" if name in best else "hollow"))
    named.append(
      labels.Label(plot.at(point.cost, point.mean), name, numbers[name], "name" if name in best else "name minor")
    )
  parts.append(labels.draw(plot, _renamed(named, joined), boxes + taken, [stairs, *lines]))
  return svg.figure(plot, parts, f"{table.primary} against {front.axis.words}, {table.task}")


def point_mark(plot: svg.Frame, point: pareto.Point, table: Table, number: int, kind: str = "mark") -> str:
  """A row at its cost and score, with the whisker of its interval."""
  low, high = plots.clipped(point.entry, table)
  whisker = svg.line(plot.at(point.cost, low), plot.at(point.cost, high), "whisker", number)
  return whisker + svg.marker(plot.at(point.cost, point.mean), number, MARK, kind)


def occupied(plot: svg.Frame, point: pareto.Point, table: Table) -> list[labels.Box]:
  """What a mark and its whisker cover."""
  low, high = plots.clipped(point.entry, table)
  (x, y), top, bottom = plot.at(point.cost, point.mean), plot.row(high), plot.row(low)
  return [(x - 6, y - 6, x + 6, y + 6), (x - 1.5, top, x + 1.5, bottom)]


def _renamed(named: list[labels.Label], joined) -> list[labels.Label]:
  """In a family the last row has the family's name with its number, the others their number alone; among MANY rows the
  last has the name without a number, and the others none.
  """
  content = {label.content: label.content for label in named}
  for family, members in joined:
    *others, last = [point.entry.attention for point in members]
    if len(named) < MANY:
      content |= {name: family.numbers[name] or name for name in others}
    else:
      content |= dict.fromkeys(others, "") | {last: family.name.removesuffix(f"@{families.WIDTH}=…")}
  return [dataclasses.replace(label, content=content[label.content]) for label in named if content[label.content]]


def _stairs(plot: svg.Frame, front: pareto.Front, higher: bool) -> list[svg.Point]:
  """The staircase in pixels, from the worst end of the plot below the cheapest row to its right edge."""
  corners = [plot.at(*corner) for corner in pareto.stairs(front)]
  worst = plot.height - plot.bottom if higher else plot.top
  return [(corners[0][0], worst), *corners, (plot.width - plot.right, corners[-1][1])]


def _risers(stairs: list[svg.Point]) -> list[labels.Box]:
  """The upright pieces of a staircase."""
  pairs = itertools.pairwise(stairs)
  return [(x - 1, min(y, below), x + 1, max(y, below)) for (x, y), (other, below) in pairs if x == other and y != below]
