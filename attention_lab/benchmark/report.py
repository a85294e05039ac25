"""The report of a workdir: `report.md`, `report.html`, and a file for each picture, from its `rows.jsonl`."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from attention_lab.benchmark import explanation, machine, pictures, tables
from attention_lab.benchmark.settings import MODES
from attention_lab.results import benchmark_rows, pages
from attention_lab.results.pages import Block, Fold, Listing, Prose, Section

TITLE = "Attention variants timed"
READING = (
  "Every round runs each row once, in one order, so that drift hits all alike; every run waits for the device, and "
  "before a short one goes a run that is not timed, so that caches and threads are its own. A "
  "ratio is the median over rounds of time over the baseline's time in the same round. Its interval: from 6 rounds on "
  "that of the median by order statistics, which holds for any distribution; below, Student's t on logarithms, for "
  "order statistics of so few cannot reach 95 %. It knows nothing of another hour or machine.",
  "Compile is tracing and compiling, apart from the first call; (cached) programs were read from the compile cache: "
  "--compile_cache=off compiles them.",
  "Peak is arguments, outputs and temporaries of the compiled program; torch has no such program, and no entry. FLOPs "
  "are what the program does, counted from its jaxpr with loops unrolled; those with * come from the formula of exact "
  "attention, and – stands for a loop of unknown length. Share of matmul: FLOP/s over those of a square matrix product "
  "that ran in the same rounds.",
  "Crossover: from this length on the variant costs less than the best exact implementation beside it at every "
  "measured length; between two lengths the ratio is interpolated on log axes. The interval is a bootstrap over "
  "rounds. Nothing is extrapolated.",
)

Row = dict[str, Any]


def write(
  workdir: str | os.PathLike[str], mark: str = "", explain: bool = False, formats: Sequence[str] = ("svg",)
) -> list[pathlib.Path]:
  """Writes the report of the rows with digest `mark` (empty: of the last row) and returns the files' paths."""
  folder = pathlib.Path(workdir)
  held = benchmark_rows.read(folder / benchmark_rows.FILE)
  if not held.rows:
    raise ValueError(f"{folder / benchmark_rows.FILE} holds no row: run a benchmark with --workdir={folder} first")
  mark = mark or held.rows[-1]["digest"]
  every = benchmark_rows.current(held.rows)
  rows = [row for row in every if row["digest"] == mark]
  notes = _notes(held.damaged, len(every) - len(rows), rows)
  return pages.write(_page(rows, notes, explain), folder, formats) if rows else []


def line(row: Row) -> str:
  """A row as a log shows it."""
  start = f"{row['mode']} {row['length']} {row['attention']}"
  if row["status"] != "done":
    return f"{start}: {row['status']}: {row['reason']}"
  ratio = f", {tables.between(row.get('ratio'))} of the baseline" if row.get("ratio") else ""
  return f"{start}: {tables.duration(row['time']['median'])}{ratio}, {row['rounds']} rounds"


def explanations(rows: Sequence[Row]) -> list[Listing]:
  """What ran in each row and what the compiler made of it."""
  return [
    Listing(
      f"`{row['attention']}`, {row['mode']}, T = {row['length']}",
      [(sentence, "") for sentence in explanation.sentences(row)],
    )
    for row in rows
    if row["status"] == "done"
  ]


def _page(rows: Sequence[Row], notes: Sequence[str], explain: bool) -> pages.Page:
  settings = rows[-1]["settings"]
  numbers = {name: number for number, name in enumerate(dict.fromkeys(row["attention"] for row in rows))}
  blocks: list[Block] = [Prose(notes, "notes")] if notes else []
  blocks += [_mode(rows, mode, settings, numbers) for mode in MODES if any(row["mode"] == mode for row in rows)]
  if explain:
    blocks.append(Section("What ran, and what the compiler made of it", explanations(rows)))
  commands = [(f"{row['attention']}, {row['mode']}, {row['length']}", row.get("command", "")) for row in rows]
  blocks += [
    Section("How to read this", [Prose(READING)], "reading"),
    Listing("The command behind every row", commands),
    Listing("Versions", [(f"{name} {version}", "") for name, version in _versions(rows).items()]),
    Fold("Settings", [pages.Table(["setting", "value"], [[name, str(value)] for name, value in settings.items()], 2)]),
  ]
  return pages.Page(TITLE, _hardware(rows[-1]), blocks)


def _mode(rows: Sequence[Row], mode: str, settings: dict[str, Any], numbers: dict[str, int]) -> Section:
  """One mode: its figures, its table, and where variants overtake the best exact one."""
  mask = "causal" if settings["causal"] or mode == "decode" else "full"
  mask += f", window {settings['window']}" if settings["window"] else ""
  exact = benchmark_rows.exact_names([row for row in rows if row["mode"] == mode and row["status"] == "done"])
  names = ", ".join(f"`{name}`" for name in exact) or "none"
  crossing = Section("Crossover", [Prose([f"Exact here: {names}."], "hint"), tables.crossovers(rows, mode)])
  measured = tables.measured(rows, mode, settings["baseline"])
  return Section(f"{mode.capitalize()}, {mask}", [*pictures.of_mode(rows, mode, numbers), measured, crossing])


def _versions(rows: Sequence[Row]) -> dict[str, str]:
  return {name: version for row in rows for name, version in row["versions"].items()}


def _hardware(row: Row) -> str:
  settings = row["settings"]
  sizes = f"B{settings['batch']} N{settings['heads']} K{settings['kv_heads']} H{settings['head_width']}"
  pages = " · huge pages" if settings["huge_pages"] else ""
  cores = f"{row['cores']} core{'s' * (row['cores'] != 1)}"
  return f"{row['device']} · {cores} · {sizes} · {settings['dtype']} · commit {row['commit']}{pages}"


def _notes(damaged: Sequence[int], others: int, rows: Sequence[Row]) -> list[str]:
  notes = []
  busy = [row["other_load"] for row in rows if (row.get("other_load") or 0.0) > machine.QUIET]
  if busy:
    notes.append(
      f"**The machine was not quiet**: others used up to {max(busy):.1f} cores while {len(busy)} of {len(rows)} rows "
      "ran (`other_load` in the rows). Ratios of short calls, and of engines that wait for all threads, suffer most."
    )
  if damaged:
    notes.append(
      f"{benchmark_rows.FILE}: line {', '.join(map(str, damaged))} was cut short by a kill and does not count."
    )
  if others:
    notes.append(
      f"{benchmark_rows.FILE} holds {others} rows of other settings, code, versions or devices: they are left out."
    )
  return notes
