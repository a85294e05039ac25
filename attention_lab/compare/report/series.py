"""Curves with bands, one for each variant: in one plot while they are few, else each in a small plot of its own."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from attention_lab.compare.report import plots
from attention_lab.compare.report.tables import Table
from attention_lab.results import svg

FEW = 6  # curves whose bands can be told apart in one plot
Point = tuple[float, float, float, float]  # x, low, mean, high


@dataclasses.dataclass(frozen=True)
class Series:
  """Curves by variant, their scales and the words of their axes; `table` gives the reference lines."""

  lines: Mapping[str, Sequence[Point]]
  x: svg.Scale
  y: svg.Scale
  x_title: str
  x_text: Callable[[float], str]
  table: Table
  label: str  # read aloud in the picture's place; the pictures of a page have different ones

  @property
  def key(self) -> str:
    """What a caption must say of the picture: where names have no room, which lines are the references."""
    shown = plots.inside(svg.Frame(self.x, self.y), self.table)
    names = sorted(shown, key=lambda name: shown[name])
    dotted = f" Dotted, from below: {', '.join(names)}." if names else ""
    return f" Grey: the other rows.{dotted}" if self.wide else ""

  @property
  def wide(self) -> bool:
    """Whether there are too many curves for one plot."""
    return len(self.lines) > FEW


def draw(series: Series, numbers: plots.Numbers) -> str:
  """The picture, or several in a grid."""
  return _panels(series, numbers) if series.wide else _plot(series, numbers)


def _plot(series: Series, numbers: plots.Numbers) -> str:
  frame = svg.Frame(series.x, series.y)
  ends = {name: (line[-1][2], numbers[name]) for name, line in series.lines.items()}
  ends |= {name: (value, None) for name, value in plots.inside(frame, series.table).items()}
  frame = dataclasses.replace(frame, right=24 + max(svg.extent(svg.shorten(name)) for name in ends))
  drawn = [_curve(frame, line, numbers[name]) for name, line in series.lines.items()]
  grid = svg.axes(frame, series.x_title, series.x_text, plots.ticked(frame.y))
  clip, inside = _clipped(frame, series, drawn)
  parts = [clip, grid, plots.references(frame, series.table), inside, *svg.end_labels(frame, ends)]
  return svg.figure(frame, parts, series.label)


def _panels(series: Series, numbers: plots.Numbers) -> str:
  frame = svg.Frame(series.x, series.y, 250.0, 168.0, left=38.0, right=10.0, top=24.0, bottom=24.0)
  clip, others = _clipped(frame, series, [_ghost(frame, line) for line in series.lines.values()])
  shared = _identifier(series, "all")
  panels = []
  for place, (name, line) in enumerate(series.lines.items()):
    behind = others.replace("<g ", f'<g id="{shared}" ', 1) if place == 0 else f'<use href="#{shared}"/>'
    parts = [clip if place == 0 else "", _ticks(frame, series), plots.references(frame, series.table), behind]
    parts.append(f'<g clip-path="url(#{_identifier(series)})">{_curve(frame, line, numbers[name])}</g>')
    parts.append(svg.marker((frame.left + 4, 12.0), numbers[name], 4.0))
    parts.append(svg.text((frame.left + 14, 16.0), name, "name", numbers[name]))
    panels.append(svg.figure(frame, parts, f"{series.label}: {name}"))
  return f'<div class="panels">{"".join(panels)}</div><p class="axes">across: {series.x_title}</p>'


def _ticks(frame: svg.Frame, series: Series) -> str:
  bottom, text = frame.height - frame.bottom, plots.ticked(frame.y)
  parts = []
  for value in frame.y.ticks()[:: 2 if len(frame.y.ticks()) > 4 else 1]:
    parts.append(svg.line((frame.left, frame.row(value)), (frame.width - frame.right, frame.row(value)), "rule"))
    parts.append(svg.text((frame.left - 5, frame.row(value) + 4), text(value), "tick end"))
  ticks = frame.x.ticks()
  for value, kind in ((ticks[0], "middle"), (ticks[-1], "end" if frame.x(ticks[-1]) > 0.97 else "middle")):
    at = frame.column(value)
    parts.append(svg.line((at, bottom), (at, bottom + 3), "axis"))
    parts.append(
      svg.text((min(at + 6, frame.width) if kind == "end" else at, bottom + 16), series.x_text(value), f"tick {kind}")
    )
  parts.append(svg.line((frame.left, bottom), (frame.width - frame.right, bottom), "axis"))
  return "".join(parts)


def _curve(frame: svg.Frame, line: Sequence[Point], number: int) -> str:
  lower = [frame.at(x, low) for x, low, _, _ in line]
  upper = [frame.at(x, high) for x, _, _, high in reversed(line)]
  middle = [frame.at(x, mean) for x, _, mean, _ in line]
  every = max(1, len(middle) // 8)
  marks = "".join(svg.marker(at, number, 3.2) for at in middle[::-1][::every])
  return svg.path(lower + upper, "band", number, closed=True) + svg.path(middle, "curve", number) + marks


def _ghost(frame: svg.Frame, line: Sequence[Point]) -> str:
  return svg.path([frame.at(x, mean) for x, _, mean, _ in line], "ghost", 0)


def _clipped(frame: svg.Frame, series: Series, drawn: Sequence[str]) -> tuple[str, str]:
  """The clip path of a plot's area, and what is drawn within."""
  box = (
    f'width="{frame.width - frame.left - frame.right + 6:.1f}" height="{frame.height - frame.top - frame.bottom:.1f}"'
  )
  clip = f'<clipPath id="{_identifier(series)}"><rect x="{frame.left}" y="{frame.top}" {box}/></clipPath>'
  return clip, f'<g clip-path="url(#{_identifier(series)})">{"".join(drawn)}</g>'


def _identifier(series: Series, part: str = "clip") -> str:
  return plots.identifier(part, series.label)
