"""The tables of a benchmark: the measurements, and the length at which a variant overtakes the best exact one."""

from collections.abc import Sequence
from typing import Any

from attention_lab.results import benchmark_rows, crossover, formatting, pages

HEAD = (
  "T",
  "variant",
  "time ÷ {baseline} [95 %]",
  "median time",
  "rounds",
  "peak MiB",
  "temporaries MiB",
  "FLOPs",
  "FLOP/s",
  "share of matmul [95 %]",
  "compile",
  "first call",
)

Row = dict[str, Any]


def measured(rows: Sequence[Row], mode: str, baseline: str) -> pages.Table:
  """The table of a mode's rows by length; a row that was not measured has its reason."""
  head = [title.format(baseline=baseline) for title in HEAD]
  chosen = sorted((row for row in rows if row["mode"] == mode), key=lambda row: row["length"])
  return pages.Table(head, [_cells(row) for row in chosen], 2)


def crossovers(rows: Sequence[Row], mode: str) -> pages.Table:
  """The table of lengths from which each variant costs less than the best exact one beside it, in time and memory."""
  done = [row for row in rows if row["mode"] == mode and row["status"] == "done"]
  times, bytes_ = benchmark_rows.log_times(done), benchmark_rows.peak_bytes(done)
  exact = benchmark_rows.exact_names(done)
  names = list(dict.fromkeys(row["attention"] for row in done))
  cells = []
  for name in names:
    crossings = crossover.of_rounds(times, name, exact), crossover.of_costs(bytes_, name, exact)
    shown = [_crossing(crossing, name, exact) for crossing in crossings]
    known = any(name in row for row in bytes_.values())
    cells.append([f"`{name}`", shown[0], shown[1] if known else "its memory cannot be read"])
  return pages.Table(["variant", "faster from T [95 %]", "smaller from T"], cells, 3)


def duration(seconds: float | None) -> str:
  """A duration as `1.23 ms`, with three significant digits."""
  if seconds is None:
    return "–"
  for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
    if seconds >= size or unit == "µs":
      value = seconds / size
      return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f} {unit}"
  return ""


def between(estimate: dict[str, Any] | None, share: bool = False) -> str:
  """An estimate as `0.62 [0.60, 0.65]`, or in per cent; a dash where there is none."""
  if not estimate:
    return "–"
  shown = [f"{100 * value:.3g} %" if share else f"{value:.3g}" for value in _ends(estimate)]
  return shown[0] if len(shown) == 1 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _ends(estimate: dict[str, Any]) -> list[float]:
  ends = [end for end in (estimate["median"], estimate["low"], estimate["high"]) if end is not None]
  return ends if len(set(ends)) > 1 else ends[:1]


def _real(value: float | int | None) -> float | None:
  return None if value is None else float(value)


def _cells(row: Row) -> list[str]:
  start = [str(row["length"]), f"`{row['attention']}`"]
  if row["status"] != "done":
    return [*start, f"{row['status']}: {row['reason']}"]
  memory = row.get("memory") or {}
  mark = "" if row.get("flops_from") == "program" or not row.get("flops") else " *"
  return [
    *start,
    between(row.get("ratio")),
    duration(row["time"]["median"]),
    str(row["rounds"]),
    formatting.mebibytes(_real(memory.get("peak"))),
    formatting.mebibytes(_real(memory.get("temporaries"))),
    formatting.thousands(_real(row.get("flops"))) + mark,
    formatting.thousands(_real(row.get("flops_per_second"))),
    between(row.get("share_of_matmul"), share=True),
    duration(row.get("compile_seconds")) + " (cached)" * bool(row.get("compile_cached")),
    duration(row.get("first_seconds")),
  ]


def _crossing(crossing: crossover.Crossover | None, name: str, exact: Sequence[str]) -> str:
  if crossing is not None:
    return str(crossing)
  if not set(exact) - {name}:
    return "no other exact implementation was measured"
  return "fewer than two lengths were measured beside an exact one"
