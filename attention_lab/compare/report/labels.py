"""Names beside the points of a plot: near, within the plot, off each other and off what is drawn.

Each label tries places on rings around its point and takes the cheapest; a few rounds let the others react. A label
that had to go further than the first ring is tied to its point by a thin line.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

from attention_lab.results import svg

RINGS = (9.0, 22.0, 38.0, 56.0, 78.0, 104.0)
ROUNDS = 4
UP, DOWN = 10.0, 3.5  # of a label's text over and under its base line, in pixels
FULL, CROSSING = 40.0, 12.0  # what covering a box entirely, and crossing a line, cost in pixels of distance

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclasses.dataclass(frozen=True)
class Label:
  """A name for the point `at`; `number` gives its colour, `kind` its style."""

  at: svg.Point
  content: str
  number: int
  kind: str = "name"


def draw(frame: svg.Frame, labels: Sequence[Label], boxes: Sequence[Box], lines: Sequence[Sequence[svg.Point]]) -> str:
  """The labels as SVG, kept off the boxes (marks, whiskers, other text) and, where there is room, off the lines."""
  choices = [_choices(frame, label) for label in labels]
  edges = [pair for points in lines for pair in itertools.pairwise(points)]
  fixed = [[_cost_of_place(box, ring, boxes, edges) for box, ring in options] for options in choices]
  taken: list[int | None] = [None] * len(labels)
  crowded = sorted(range(len(labels)), key=lambda i: -sum(sorted(fixed[i])[:4]))
  for _ in range(ROUNDS):
    before = list(taken)
    for i in crowded:
      others = [(choices[j][k][0], labels[j].at) for j, k in enumerate(taken) if k is not None and j != i]
      costs = [
        cost + _cost_beside(box, labels[i].at, others) for (box, _), cost in zip(choices[i], fixed[i], strict=True)
      ]
      taken[i] = min(range(len(costs)), key=costs.__getitem__)
    if taken == before:
      break
  return "".join(_drawn(label, *choices[i][taken[i]]) for i, label in enumerate(labels))


def overlap(one: Box, other: Box) -> float:
  """The share of the smaller box that the other covers."""
  if one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]:
    return 0.0
  wide, high = min(one[2], other[2]) - max(one[0], other[0]), min(one[3], other[3]) - max(one[1], other[1])
  smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other))
  return wide * high / max(smaller, 1e-9)


def _choices(frame: svg.Frame, label: Label) -> list[tuple[Box, float]]:
  wide = svg.extent(svg.shorten(label.content))
  found = []
  for ring in RINGS:
    for angle in range(0, 360, 45 if ring == RINGS[0] else 30):
      dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
      middle = label.at[1] + ring * dy + (UP - DOWN) / 2 - DOWN / 2 * (abs(dy) < 0.5)
      start = label.at[0] + ring * dx - wide * (0.5 if abs(dx) < 0.2 else float(dx < 0))
      box = (start, middle - UP + 3, start + wide, middle + DOWN + 3)
      left, right, low = frame.left + 3, frame.width - 2, frame.height - frame.bottom - 3
      if box[0] >= left and box[2] <= right and box[1] >= 2 and box[3] <= low:
        found.append((box, ring))
  start = min(max(label.at[0] + RINGS[0], frame.left + 3), frame.width - 2 - wide)
  return found or [((start, label.at[1] - UP / 2, start + wide, label.at[1] + UP / 2 + DOWN), RINGS[0])]


def _cost_of_place(box: Box, ring: float, boxes: Sequence[Box], edges: Sequence[tuple[svg.Point, svg.Point]]) -> float:
  covered = sum(FULL + FULL * share for one in boxes if (share := overlap(box, one)))
  return ring * (1.0 if ring == RINGS[0] else 1.3) + covered + CROSSING * sum(_crosses(box, *edge) for edge in edges)


def _cost_beside(box: Box, at: svg.Point, others: Sequence[tuple[Box, svg.Point]]) -> float:
  """Lying on another label, or on its leader, or leading over it."""
  middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
  cost = 0.0
  for other, point in others:
    there = (other[0] + other[2]) / 2, (other[1] + other[3]) / 2
    grown = (other[0] - 4, other[1] - 1, other[2] + 4, other[3] + 1)
    share = overlap(box, grown)
    cost += 5 * FULL * (1 + share) if share else 0.0
    cost += CROSSING * (_crosses(other, at, middle) + _crosses(box, point, there))
  return cost


def _crosses(box: Box, start: svg.Point, end: svg.Point) -> bool:
  """Whether a straight line meets a box (Liang and Barsky's clipping)."""
  (x, y), (across, below) = start, end
  if max(x, across) < box[0] or min(x, across) > box[2] or max(y, below) < box[1] or min(y, below) > box[3]:
    return False
  first, last = 0.0, 1.0
  for axis in (0, 1):
    step = end[axis] - start[axis]
    low, high = box[axis] - start[axis], box[axis + 2] - start[axis]
    if abs(step) < 1e-9:
      if low > 0 or high < 0:
        return False
      continue
    near, far = sorted((low / step, high / step))
    first, last = max(first, near), min(last, far)
  return first < last


def _drawn(label: Label, box: Box, ring: float) -> str:
  parts = []
  if ring > RINGS[0]:
    near = min(max(label.at[0], box[0]), box[2]), min(max(label.at[1], box[1] + 2), box[3] - 1)
    parts.append(svg.line(label.at, near, "leader", label.number))
  middle = (box[0] + box[2]) / 2
  return "".join([*parts, svg.text((middle, box[3] - DOWN), label.content, f"{label.kind} middle", label.number)])
