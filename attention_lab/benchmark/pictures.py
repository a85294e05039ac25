"""The figures of a benchmark: time, memory and FLOP/s against length, both axes logarithmic, names at the lines."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attention_lab.benchmark import tables
from attention_lab.results import figures, formatting, pages
from attention_lab.results.figure_labels import Line, Point
from attention_lab.results.figures import Axis

TOGETHER = 12  # lines of one plot, beyond which each has a small plot of its own

Row = dict[str, Any]
Value = tuple[float, float, float]  # low, median, high


def of_mode(rows: Sequence[Row], mode: str, numbers: Mapping[str, int]) -> list[pages.Picture]:
  """The figures of a mode for which there is something to draw; `numbers` gives each name its colour and marker."""
  done = [row for row in rows if row["mode"] == mode and row["status"] == "done"]
  call = "of one token" if mode == "decode" else "of one call"
  peak = max((row["matmul_flops_per_second"] for row in done if row.get("matmul_flops_per_second")), default=None)
  kinds = [
    ("time", f"Median time {call}, with its 95 % interval.", "time", _time, tables.duration, None),
    ("memory", "Arguments, outputs and temporaries of the compiled program.", "MiB", _memory, "{:.4g}".format, None),
    ("speed", "FLOP/s; the dotted line is the matrix product.", "FLOP/s", _speed, formatting.thousands, peak),
  ]
  drawn = []
  for name, caption, title, value_of, text, reference in kinds:
    lines = _lines(done, value_of, numbers)
    if lines:
      figure = _against_length(lines, title, text, {"matmul": reference} if reference else {})
      alt = f"{mode}: {name} against length, of {formatting.joined(line.name for line in lines)}"
      drawn.append(pages.Picture(f"{mode.capitalize()}: {name}", caption, alt, f"{mode}_{name}", figure))
  return drawn


def _against_length(
  lines: Sequence[Line], title: str, text: Callable[[float], str], references: Mapping[str, float]
) -> Any:
  lengths = sorted({point[0] for line in lines for point in line.points})
  values = [end for line in lines for point in line.points for end in point[1:]] + list(references.values())
  x = Axis("length T", figures.padded(lengths, 0.03, log=True), True, lengths, formatting.count)
  y = Axis(title, figures.padded(values, log=True), True, text=text)
  if len(lines) <= TOGETHER:
    return figures.plot(lines, x, y, references=references)
  return figures.panels({line.name: [line] for line in lines}, x, y, references=references)


def _lines(rows: Sequence[Row], value_of: Callable[[Row], Value | None], numbers: Mapping[str, int]) -> list[Line]:
  points: dict[str, list[Point]] = {}
  for row in sorted(rows, key=lambda row: row["length"]):
    value = value_of(row)
    if value and value[0] > 0:
      points.setdefault(row["attention"], []).append((float(row["length"]), *value))
  return [Line(name, line, numbers[name]) for name, line in points.items()]


def _time(row: Row) -> Value:
  time = row["time"]
  return time["low"] or time["median"], time["median"], time["high"] or time["median"]


def _memory(row: Row) -> Value | None:
  if not row.get("memory"):
    return None
  peak = row["memory"]["peak"] / 2**20
  return peak, peak, peak


def _speed(row: Row) -> Value | None:
  speed = row.get("flops_per_second")
  return (speed, speed, speed) if speed else None
