"""From which length on the variants of a report cost less than the best exact one, read from a benchmark's rows."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attention_lab.compare.report import capability
from attention_lab.results import benchmark_rows, crossover, formatting, pages

FILE = "benchmark.json"
KEY = "folder"


@dataclasses.dataclass(frozen=True)
class Crossovers:
  """The crossings of a report's variants, what was measured, and (what, command) of the rows behind them."""

  sheet: pages.Table | None
  explanation: tuple[str, ...]
  commands: tuple[tuple[str, str], ...]


def named(workdir: str | os.PathLike[str]) -> pathlib.Path | None:
  """The benchmark's folder that a workdir names in `benchmark.json` as {"folder": PATH}, seen from the workdir.

  None without the file. ValueError where it says something else.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except ValueError:
    content = None
  if not isinstance(content, dict) or set(content) != {KEY} or not isinstance(content[KEY], str):
    raise ValueError(f'{path} must hold {{"{KEY}": PATH}}, the folder of a benchmark, and nothing else')
  return pathlib.Path(workdir) / content[KEY]


def read(folder: str | os.PathLike[str], order: Iterable[str], numbers: Mapping[str, int] = {}) -> Crossovers:
  """The crossings of the variants in `order`, in the newest settings of a benchmark; ValueError without a row."""
  path = pathlib.Path(folder) / benchmark_rows.FILE
  held = benchmark_rows.read(path)
  if not held.rows:
    raise ValueError(
      f"{path} holds no row: run python -m experiments.benchmark --workdir={folder} first, or leave the benchmark out"
    )
  newest = held.rows[-1]["digest"]
  rows = [row for row in benchmark_rows.current(held.rows) if row["digest"] == newest and row["status"] == "done"]
  specs = capability.specs(order)
  measured = {row["attention"] for row in rows}
  modes = dict.fromkeys(row["mode"] for row in rows)
  cells = [cell for mode in modes for cell in _cells([row for row in rows if row["mode"] == mode], mode, specs)]
  head = ["variant", "call", "faster from T [95 %]", "smaller from T", "lengths measured"]
  absent = [f"`{name}`" for name in specs if name not in measured]
  lines = [_setting(held.rows[-1], rows)]
  lines += [f"Not in the benchmark: {formatting.joined(absent)}."] if absent else []
  shown = [row for row in rows if row["attention"] in specs]
  sheet = pages.Table(head, cells, 5, "crossovers", numbers) if cells else None
  commands = tuple((f"{row['attention']}, {row['mode']}, {row['length']}", row.get("command", "")) for row in shown)
  return Crossovers(sheet, tuple(lines), commands)


def _cells(rows: Sequence[dict[str, Any]], mode: str, specs: Sequence[str]) -> list[list[str]]:
  exact = benchmark_rows.exact_names(rows)
  times, peaks = benchmark_rows.log_times(rows), benchmark_rows.peak_bytes(rows)
  cells = []
  for name in specs:
    lengths = sorted({row["length"] for row in rows if row["attention"] == name})
    if lengths:
      faster, smaller = crossover.of_rounds(times, name, exact), crossover.of_costs(peaks, name, exact)
      span = ", ".join(formatting.count(float(length)) for length in lengths)
      cells.append([f"`{name}`", mode, _shown(faster, name, exact), _shown(smaller, name, exact), span])
  return cells


def _shown(crossing: crossover.Crossover | None, name: str, exact: Sequence[str]) -> str:
  if crossing is not None:
    return str(crossing)
  if not exact:
    return "no exact one was measured"
  return "it is the exact one itself" if not set(exact) - {name} else "fewer than two lengths beside an exact one"


def _setting(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
  settings = row["settings"]
  sizes = f"batch {settings['batch']}, {settings['heads']} heads of {settings['head_width']}, {settings['dtype']}"
  mask = "causal" if settings["causal"] else "full"
  exact = formatting.joined(f"`{name}`" for name in benchmark_rows.exact_names(rows)) or "none"
  return (
    "The best exact implementation of each length is the fastest, or the smallest, of "
    f"{exact}. Measured on {row['device']}: {mask} attention, {sizes}, commit {row['commit']}. Nothing is extrapolated "
    "beyond the lengths measured; the interval is a bootstrap over rounds."
  )
