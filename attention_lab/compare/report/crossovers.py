"""From which length on the variants of a report cost less than the best exact one, read from a benchmark's rows."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from attention_lab.compare.report import capability, columns
from attention_lab.results import benchmark_rows, crossover, formatting

FILE = "benchmark.json"
KEY = "folder"


@dataclasses.dataclass(frozen=True)
class Crossovers:
  """The crossings of a report's variants, words on what was measured, and (what, command) of the rows behind them."""

  sheet: columns.Sheet | None
  words: tuple[str, ...]
  commands: tuple[tuple[str, str], ...]


def named(workdir: str | os.PathLike[str]) -> pathlib.Path | None:
  """The benchmark's folder that a workdir names in `benchmark.json` as {"folder": PATH}, seen from the workdir.

  None without the file. ValueError where it says something else.
  """
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return None
  try:
    said = json.loads(path.read_text(encoding="utf-8"))
  except ValueError:
    said = None
  if not isinstance(said, dict) or set(said) != {KEY} or not isinstance(said[KEY], str):
    raise ValueError(f'{path} must hold {{"{KEY}": PATH}}, the folder of a benchmark, and nothing else')
  return pathlib.Path(workdir) / said[KEY]


def read(folder: str | os.PathLike[str], order: Iterable[str]) -> Crossovers:
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
  words = [_facts(held.rows[-1], rows)]
  words += [f"Not in the benchmark: {formatting.joined(absent)}."] if absent else []
  shown = [row for row in rows if row["attention"] in specs]
  commands = tuple((f"{row['attention']}, {row['mode']}, {row['length']}", row.get("command", "")) for row in shown)
  return Crossovers(columns.Sheet(head, cells, 5) if cells else None, tuple(words), commands)


def _cells(rows: Sequence[dict[str, Any]], mode: str, specs: Sequence[str]) -> list[list[str]]:
  exact = benchmark_rows.exact_names(rows)
  times, peaks = benchmark_rows.log_times(rows), benchmark_rows.peak_bytes(rows)
  found = []
  for name in specs:
    lengths = sorted({row["length"] for row in rows if row["attention"] == name})
    if lengths:
      faster, smaller = crossover.of_rounds(times, name, exact), crossover.of_costs(peaks, name, exact)
      span = ", ".join(formatting.count(float(length)) for length in lengths)
      found.append([f"`{name}`", mode, _shown(faster, name, exact), _shown(smaller, name, exact), span])
  return found


def _shown(found: crossover.Crossover | None, name: str, exact: Sequence[str]) -> str:
  if found is not None:
    return str(found)
  if not exact:
    return "no exact one was measured"
  return "it is the exact one itself" if not set(exact) - {name} else "fewer than two lengths beside an exact one"


def _facts(row: dict[str, Any], rows: Sequence[dict[str, Any]]) -> str:
  settings = row["settings"]
  sizes = f"batch {settings['batch']}, {settings['heads']} heads of {settings['head_width']}, {settings['dtype']}"
  mask = "causal" if settings["causal"] else "full"
  exact = formatting.joined(f"`{name}`" for name in benchmark_rows.exact_names(rows)) or "none"
  return (
    "The best exact implementation of each length is the fastest, or the smallest, of "
    f"{exact}. Measured on {row['device']}: {mask} attention, {sizes}, commit {row['commit']}. Nothing is extrapolated "
    "beyond the lengths measured; the interval is a bootstrap over rounds."
  )
