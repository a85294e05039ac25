"""What the pictures of a table share: how far scores reach, the reference lines, and the small bar in a cell."""

import dataclasses
import re
from collections.abc import Mapping, Sequence

from attention_lab.compare.report import labels
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, svg

APART = 13.0  # pixels between the lines of two references that are named apart
Numbers = Mapping[str, int]  # variant -> its number, which gives colour, dash and mark on the whole page


@dataclasses.dataclass(frozen=True)
class Figure:
  """A picture with its caption, and sentences under it; a wide one takes the whole row of a page."""

  title: str
  caption: str
  picture: str
  words: Sequence[str] = ()
  wide: bool = False


def bar(entry: Entry, table: Table, number: int) -> str:
  """The interval of a row to the scale that its column shares; small strokes are the seeds."""
  low, high = scale(table)
  frame = svg.Frame(svg.Scale(low, high), svg.Scale(0.0, 1.0), 130.0, 20.0, left=5.0, right=5.0, top=0.0, bottom=0.0)
  edges = [min(max(edge, low), high) for edge in (entry.interval.low, entry.interval.high)]
  parts = [svg.line(frame.at(low, 0.5), frame.at(high, 0.5), "rule")]
  inside = [value for value in table.references.values() if low <= value <= high]
  parts += [svg.line(frame.at(value, 0.0), frame.at(value, 1.0), "reference") for value in inside]
  parts += [svg.line(frame.at(value, 0.22), frame.at(value, 0.78), "seed", number) for value in entry.scores.values()]
  if entry.interval.half is not None:
    parts.append(svg.line(frame.at(edges[0], 0.5), frame.at(edges[1], 0.5), "interval", number))
  parts.append(svg.marker(frame.at(entry.interval.mean, 0.5), number))
  return svg.figure(frame, parts, f"interval from {entry.interval.low:.3g} to {entry.interval.high:.3g}")


def swatch(number: int) -> str:
  """The mark of a variant before its name."""
  box = '<svg viewBox="0 0 14 14" class="swatch" aria-hidden="true">'
  return f"{box}{svg.marker((7.0, 7.0), number, 4.5)}</svg>"


def scale(table: Table) -> tuple[float, float]:
  """The ends of the scale of a table's bars: its intervals, and the references that do not stretch it by half."""
  edges = [edge for entry in table.scored for edge in clipped(entry, table)]
  chosen = with_references(edges, table, 0.02)
  return (max(chosen.low, 0.0), min(chosen.high, 1.0)) if bounded(table) else (chosen.low, chosen.high)


def with_references(values: Sequence[float], table: Table, share: float = 0.06) -> svg.Scale:
  """A scale of values, and of the references that do not stretch it by half."""
  low, high = min(values), max(values)
  room = 0.5 * (high - low)
  near = [value for value in table.references.values() if low - room <= value <= high + room]
  return svg.padded([low, high, *near], share)


def inside(frame: svg.Frame, table: Table) -> dict[str, float]:
  """The references that a plot of scores shows."""
  return {name: value for name, value in table.references.items() if frame.y.low <= value <= frame.y.high}


def references(frame: svg.Frame, table: Table) -> str:
  """The references as lines across, without their names."""
  rows = [frame.row(value) for value in inside(frame, table).values()]
  return "".join(svg.line((frame.left, row), (frame.width - frame.right, row), "reference") for row in rows)


def named(frame: svg.Frame, table: Table, boxes: Sequence[labels.Box]) -> tuple[str, list[labels.Box]]:
  """The names of the references at their lines, off the boxes where there is room, and the boxes that they take.

  References whose lines nearly touch share one place.
  """
  groups: list[list[tuple[float, str]]] = []
  for row, name in sorted((frame.row(value), name) for name, value in inside(frame, table).items()):
    if groups and row - groups[-1][-1][0] < APART:
      groups[-1].append((row, name))
    else:
      groups.append([(row, name)])
  parts, taken = [], []
  for group in groups:
    content = ", ".join(name for _, name in group)
    wide = svg.extent(content)
    left, right = frame.left + 4, frame.width - frame.right - 4 - wide
    rows = (group[0][0] - 5, group[-1][0] + 13)
    places = [(x, y) for y in rows for x in (left, right, (left + right) / 2) if frame.top <= y - 9]
    box = min(
      ((x, y - 9, x + wide, y + 3) for x, y in places),
      key=lambda box: sum(labels.overlap(box, other) + 1 for other in boxes if labels.overlap(box, other)),
    )
    taken.append(box)
    parts.append(svg.text((box[0], box[3] - 3), content, "reference-name"))
  return "".join(parts), taken


def clipped(entry: Entry, table: Table) -> tuple[float, float]:
  """The ends of a row's interval, within [0, 1] where the metric is a share."""
  low, high = entry.interval.low, entry.interval.high
  return (max(low, 0.0), min(high, 1.0)) if bounded(table) else (low, high)


def bounded(table: Table) -> bool:
  """Whether the metric is a share, so that no interval reaches beyond [0, 1]."""
  scores = [score for entry in table.scored for score in entry.scores.values()]
  return table.higher_is_better and all(0 <= score <= 1 for score in scores)


def ticked(scale_: svg.Scale):
  """How the ticks of a scale of scores are written: with as many digits as tell them apart."""
  ticks = scale_.ticks()
  step = ticks[1] - ticks[0] if len(ticks) > 1 else 1.0
  digits = next((digits for digits in range(5) if abs(round(step, digits) - step) < 1e-9), 5)
  return lambda value: formatting.score(value, digits)


def short(value: float) -> str:
  """A tick of a cost: `30 k`, `1.5 M`, `0.25`."""
  power = next((power for power in (4, 3, 2, 1) if abs(value) >= 0.9995 * 1000.0**power), 0)
  unit = f"\N{NO-BREAK SPACE}{'kMGT'[power - 1]}" if power else ""
  return f"{value / 1000.0**power:.3g}{unit}"


def identifier(*words: str) -> str:
  """An id within the page."""
  return re.sub(r"[^A-Za-z0-9_]+", "-", "-".join(words)).strip("-")
