"""Plots drawn by hand as SVG, so that one page holds them, follows its dark mode and prints its text as text."""

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence

MARKERS = ("circle", "square", "triangle", "diamond", "wedge", "cross", "plus")
DASHES = ("", "7 3", "2 3", "9 3 2 3", "4 2")
COLOURS = 7
LABEL = 22
_WIDTHS = (
  ("ijlIJ|/\\ ',-.:;·", 0.39),
  ('f!()[]rt"*_`', 0.48),
  ("csz", 0.6),
  ("mwMW%@…", 1.05),
  ("DGHNOQU=+<>×≥&#", 0.84),
)
_EM = {letter: width for letters, width in _WIDTHS for letter in letters}

Point = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Scale:
  """Maps [low, high] to [0, 1], linearly or by logarithm."""

  low: float
  high: float
  log: bool = False

  def __call__(self, value: float) -> float:
    low, high, here = (math.log(one) if self.log else one for one in (self.low, self.high, value))
    return (here - low) / (high - low)

  def ticks(self) -> list[float]:
    """About five round numbers within the range."""
    if self.log:
      decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
      for digits in ((1,), (1, 3), (1, 2, 5)):
        found = [d * 10.0**e for e in decades for d in digits if self.low <= d * 10.0**e <= self.high]
        if len(found) >= 3:
          return found
    rough = (self.high - self.low) / 6
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= rough * 0.999)
    first = math.ceil(self.low / step - 1e-9)
    return [(first + i) * step for i in range(int((self.high - first * step) / step + 1e-9) + 1)]


@dataclasses.dataclass(frozen=True)
class Marked(Scale):
  """A scale whose ticks are given."""

  marks: tuple[float, ...] = ()

  def ticks(self) -> list[float]:
    """The marks."""
    return list(self.marks)


def padded(values: Sequence[float], share: float = 0.06, log: bool = False) -> Scale:
  """A scale that holds all values with a margin on both sides, also when they are equal."""
  low, high = min(values), max(values)
  if log:
    margin = max((high / low) ** share, 1.15)
    return Scale(low / margin, high * margin, True)
  margin = (high - low) * share or abs(high) * share or 1.0
  return Scale(low - margin, high + margin)


@dataclasses.dataclass(frozen=True)
class Frame:
  """A plot area of `width` × `height` pixels with margins and two scales."""

  x: Scale
  y: Scale
  width: float = 560.0
  height: float = 350.0
  left: float = 56.0
  right: float = 20.0
  top: float = 14.0
  bottom: float = 46.0

  def at(self, x: float, y: float) -> Point:
    """Pixels of a point in data units."""
    return self.column(x), self.row(y)

  def column(self, x: float) -> float:
    """Pixels from the left of a value of x."""
    return self.left + self.x(x) * (self.width - self.left - self.right)

  def row(self, y: float) -> float:
    """Pixels from the top of a value of y."""
    return self.height - self.bottom - self.y(y) * (self.height - self.top - self.bottom)


def figure(frame: Frame, parts: Sequence[str], label: str) -> str:
  """An `<svg>` element that scales with its column; `label` is read aloud in its place."""
  box = f"0 0 {frame.width:g} {frame.height:g}"
  return f'<svg viewBox="{box}" role="img" aria-label="{html.escape(label)}">{"".join(parts)}</svg>'


def axes(frame: Frame, x_title: str, x_text=None, y_text=None) -> str:
  """Light horizontal rules with their numbers at the left, ticks of x below; an axis without a text is left out."""
  bottom, parts = frame.height - frame.bottom, []
  for value in frame.y.ticks() if y_text else []:
    parts.append(line((frame.left, frame.row(value)), (frame.width - frame.right, frame.row(value)), "rule"))
    parts.append(text((frame.left - 8, frame.row(value) + 4), y_text(value), "tick end"))
  for value in frame.x.ticks() if x_text else []:
    parts.append(line((frame.column(value), bottom), (frame.column(value), bottom + 4), "axis"))
    parts.append(text((frame.column(value), bottom + 18), x_text(value), "tick middle"))
  parts.append(line((frame.left, bottom), (frame.width - frame.right, bottom), "axis"))
  middle = (frame.left + frame.width - frame.right) / 2
  return "".join(parts) + text((middle, frame.height - 8), x_title, "title middle")


def text(at: Point, content: str, kind: str = "", colour: int | None = None) -> str:
  """A piece of text; long names are shortened in the middle and shown whole on hover."""
  shown = shorten(content) if "name" in kind.split() else content
  title = f"<title>{html.escape(content)}</title>" if shown != content else ""
  where = f'x="{at[0]:.1f}" y="{at[1]:.1f}"'
  return f'<text {where} class="{kind}"{paint(colour)}>{title}{html.escape(shown)}</text>'


def extent(content: str, size: float = 12.0) -> float:
  """Pixels that a label of a name takes at most, in the widest of the page's fonts."""
  return size * sum(_EM.get(letter, 0.71) for letter in content)


def line(start: Point, end: Point, kind: str, colour: int | None = None) -> str:
  """A straight line."""
  ends = f'x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}"'
  return f'<line {ends} class="{kind}"{paint(colour)}/>'


def path(points: Sequence[Point], kind: str, index: int, closed: bool = False) -> str:
  """A line through points in the colour and dash of variant number `index`, or the area that they enclose."""
  drawn = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points) + "Z" * closed
  dash = "" if closed or not DASHES[index % len(DASHES)] else f' stroke-dasharray="{DASHES[index % len(DASHES)]}"'
  return f'<path d="{drawn}" class="{kind}"{paint(index)}{dash}/>'


def marker(at: Point, index: int, size: float = 4.0, kind: str = "mark") -> str:
  """The mark of variant number `index`: its shape tells it apart where its colour cannot; kind: mark or hollow."""
  (x, y), s = at, size
  shapes = {
    "circle": f"M{x - s:.1f} {y:.1f}a{s} {s} 0 1 0 {2 * s} 0a{s} {s} 0 1 0 {-2 * s} 0Z",
    "square": _polygon(x, y, s * 0.9, ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))),
    "triangle": _polygon(x, y, s * 1.2, ((0.0, -1.0), (1.0, 0.8), (-1.0, 0.8))),
    "diamond": _polygon(x, y, s * 1.3, ((0.0, -1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0))),
    "wedge": _polygon(x, y, s * 1.2, ((0.0, 1.0), (1.0, -0.8), (-1.0, -0.8))),
    "cross": _polygon(x, y, s * 1.3, tuple(_rotate(point) for point in _CROSS)),
    "plus": _polygon(x, y, s * 1.3, _CROSS),
  }
  return f'<path d="{shapes[MARKERS[(index + index // COLOURS) % len(MARKERS)]]}" class="{kind}"{paint(index)}/>'


def paint(index: int | None) -> str:
  """The style attribute that gives an element the colour of variant number `index`."""
  return "" if index is None else f' style="--c:var(--s{index % COLOURS})"'


def shorten(name: str, length: int = LABEL) -> str:
  """At most `length` characters, cut in the middle."""
  half = (length - 1) // 2
  return name if len(name) <= length else f"{name[: length - 1 - half]}…{name[-half:]}"


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
  """Positions nearest to the wanted ones that keep `gap` between neighbours, within [low, high] where they fit.

  Pooled neighbours: a group of touching labels sits around the mean of what its members want.
  """
  order = sorted(range(len(wanted)), key=lambda i: wanted[i])
  groups: list[tuple[float, list[int]]] = []
  for i in order:
    centre, members = wanted[i], [i]
    while groups and centre - (len(members) - 1) * gap / 2 < groups[-1][0] + (len(groups[-1][1]) + 1) * gap / 2:
      before = groups.pop()
      total = before[0] * len(before[1]) + centre * len(members)
      members = [*before[1], *members]
      centre = total / len(members)
    half = (len(members) - 1) * gap / 2
    groups.append((max(min(centre, high - half), low + half), members))
  placed = [0.0] * len(wanted)
  for centre, members in groups:
    for rank, i in enumerate(members):
      placed[i] = centre + (rank - (len(members) - 1) / 2) * gap
  return placed


def end_labels(frame: Frame, ends: Mapping[str, tuple[float, int | None]]) -> list[str]:
  """Names at the right of the ends of curves: name -> (value of y, number), and None for a reference line."""
  low, high, edge = frame.top + 4, frame.height - frame.bottom - 4, frame.width - frame.right
  rows = [min(max(frame.row(value), low), high) for value, _ in ends.values()]
  parts = []
  for (name, (_, number)), row, height in zip(ends.items(), rows, spread(rows, 15.0, low, high), strict=True):
    parts.append(line((edge + 4, row), (edge + 16, height), "leader" if number is not None else "reference", number))
    parts.append(text((edge + 20, height + 4), name, "name" if number is not None else "reference-name", number))
  return parts


_CROSS = (
  (-0.3, -1.0), (0.3, -1.0), (0.3, -0.3), (1.0, -0.3), (1.0, 0.3), (0.3, 0.3),
  (0.3, 1.0), (-0.3, 1.0), (-0.3, 0.3), (-1.0, 0.3), (-1.0, -0.3), (-0.3, -0.3),
)  # fmt: skip


def _rotate(point: Point) -> Point:
  return (point[0] - point[1]) * 0.707, (point[0] + point[1]) * 0.707


def _polygon(x: float, y: float, size: float, corners: Sequence[Point]) -> str:
  return "M" + "L".join(f"{x + size * dx:.1f} {y + size * dy:.1f}" for dx, dy in corners) + "Z"
