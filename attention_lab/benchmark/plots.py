"""The pictures of a benchmark: time, memory and FLOP/s against length, both axes logarithmic, names at the curves."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attention_lab.benchmark import tables
from attention_lab.results import formatting, svg
from attention_lab.results.document import Figure

WIDE = 7.3  # pixels of a letter in a label

Row = dict[str, Any]
Point = tuple[float, float, float, float]  # length, value, low, high


@dataclasses.dataclass(frozen=True)
class Lengths(svg.Scale):
  """A logarithmic scale whose ticks are the measured lengths."""

  marks: tuple[float, ...] = ()

  def ticks(self) -> list[float]:
    """The marks."""
    return list(self.marks)


def figures(rows: Sequence[Row], mode: str, numbers: Mapping[str, int]) -> list[Figure]:
  """The pictures of a mode for which there is something to draw; `numbers` gives each name its colour and mark."""
  done = [row for row in rows if row["mode"] == mode and row["status"] == "done"]
  call = "of one token" if mode == "decode" else "of one call"
  speed = [row["matmul_flops_per_second"] for row in done if row.get("matmul_flops_per_second")]
  drawn = [
    ("time", f"Median time {call}, with its 95 % interval.", _time, tables.duration, None),
    ("memory", "Arguments, outputs and temporaries of the compiled program, MiB.", _memory, _number, None),
    ("speed", "FLOP/s; the dotted line is the matrix product.", _speed, formatting.thousands, max(speed, default=None)),
  ]
  found = []
  for name, caption, read, shown, reference in drawn:
    points = _points(done, read)
    if points:
      picture = chart(points, numbers, shown, reference, f"{mode}: {name} against length")
      found.append(Figure(f"{mode.capitalize()}: {name}", caption, picture, f"{mode}_{name}.svg"))
  return found


def chart(
  points: Mapping[str, Sequence[Point]],
  numbers: Mapping[str, int],
  shown: Callable[[float], str],
  reference: float | None,
  label: str,
) -> str:
  """Curves of name -> points, a whisker at each; reference: a dotted line across."""
  values = [end for curve in points.values() for _, *band in curve for end in band]
  values += [reference] if reference else []
  lengths = sorted({length for curve in points.values() for length, *_ in curve})
  x = svg.padded(lengths, 0.03, log=True)
  names = [*points, *(["matmul"] if reference else [])]
  right = 26 + WIDE * max(len(svg.shorten(name)) for name in names)
  scale = Lengths(x.low, x.high, True, tuple(lengths))
  frame = svg.Frame(scale, svg.padded(values, log=True), left=76.0, right=right)
  parts = [svg.axes(frame, "length T", formatting.count, shown)]
  for name, curve in points.items():
    ends = [frame.at(length, value) for length, value, _, _ in curve]
    parts.append(svg.path(ends, "curve", numbers[name]))
    whiskers = [(frame.at(length, low), frame.at(length, high)) for length, _, low, high in curve if low < high]
    parts += [svg.line(*ends, "whisker", numbers[name]) for ends in whiskers]
    parts += [svg.marker(at, numbers[name]) for at in ends]
  labels = {name: (curve[-1][1], numbers[name]) for name, curve in points.items()}
  if reference:
    row = frame.row(reference)
    parts.append(svg.line((frame.left, row), (frame.width - frame.right, row), "reference"))
    labels["matmul"] = (reference, None)
  return svg.figure(frame, [*parts, *svg.end_labels(frame, labels)], label)


def _points(rows: Sequence[Row], read: Callable[[Row], tuple[float, float, float] | None]) -> dict[str, list[Point]]:
  points: dict[str, list[Point]] = {}
  for row in sorted(rows, key=lambda row: row["length"]):
    value = read(row)
    if value and value[0] > 0:
      points.setdefault(row["attention"], []).append((float(row["length"]), *value))
  return points


def _time(row: Row) -> tuple[float, float, float]:
  time = row["time"]
  return time["median"], time["low"] or time["median"], time["high"] or time["median"]


def _memory(row: Row) -> tuple[float, float, float] | None:
  return (row["memory"]["peak"] / 2**20,) * 3 if row.get("memory") else None


def _number(value: float) -> str:
  return f"{value:.4g}"


def _speed(row: Row) -> tuple[float, float, float] | None:
  speed = row.get("flops_per_second")
  return (speed, speed, speed) if speed else None
