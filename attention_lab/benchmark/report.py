"""The report of a workdir: `report.md`, `report.html`, and a file for each picture, from its `rows.jsonl`."""

import os
import pathlib
from collections.abc import Sequence
from typing import Any

from attention_lab.benchmark import explanation, machine, plots, tables
from attention_lab.benchmark.settings import MODES
from attention_lab.results import benchmark_rows, document
from attention_lab.results.document import Block, Grid, Heading, Listing, Text

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


def write(workdir: str | os.PathLike[str], mark: str = "", explain: bool = False) -> list[pathlib.Path]:
  """Writes the report of the rows with digest `mark` (empty: of the last row) and returns the files' paths."""
  folder = pathlib.Path(workdir)
  held = benchmark_rows.read(folder / benchmark_rows.FILE)
  if not held.rows:
    raise ValueError(f"{folder / benchmark_rows.FILE} holds no row: run a benchmark with --workdir={folder} first")
  mark = mark or held.rows[-1]["digest"]
  every = benchmark_rows.current(held.rows)
  rows = [row for row in every if row["digest"] == mark]
  notes = _notes(held.damaged, len(every) - len(rows), rows)
  if not rows:
    return []
  blocks = _blocks(rows, notes, explain)
  pages = {"report.md": document.markdown(blocks), "report.html": document.page(blocks, TITLE)}
  pages |= {block.file: document.standalone(block) for block in blocks if isinstance(block, document.Figure)}
  for name, content in pages.items():
    partial = folder / f".{name}.{os.getpid()}"
    partial.write_text(content, encoding="utf-8")
    partial.replace(folder / name)
  return [folder / name for name in pages]


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
    Listing(f"`{row['attention']}`, {row['mode']}, T = {row['length']}", explanation.sentences(row))
    for row in rows
    if row["status"] == "done"
  ]


def _blocks(rows: Sequence[Row], notes: Sequence[str], explain: bool) -> list[Block]:
  settings = rows[-1]["settings"]
  numbers = {name: number for number, name in enumerate(dict.fromkeys(row["attention"] for row in rows))}
  blocks: list[Block] = [Heading(TITLE, 1), Text(_facts(rows[-1])), *map(Text, notes)]
  for mode in [mode for mode in MODES if any(row["mode"] == mode for row in rows)]:
    mask = "causal" if settings["causal"] or mode == "decode" else "full"
    mask += f", window {settings['window']}" if settings["window"] else ""
    exact = benchmark_rows.exact_names([row for row in rows if row["mode"] == mode and row["status"] == "done"])
    blocks += [
      Heading(f"{mode.capitalize()}, {mask}"),
      tables.measured(rows, mode, settings["baseline"]),
      *plots.figures(rows, mode, numbers),
      Heading("Crossover", 3),
      Text(f"Exact here: {', '.join(f'`{name}`' for name in exact) or 'none'}."),
      tables.crossovers(rows, mode),
    ]
  if explain:
    blocks += [Heading("What ran, and what the compiler made of it"), *explanations(rows)]
  blocks += [Heading("How to read this"), *map(Text, READING)]
  commands = [f"{row['attention']}, {row['mode']}, {row['length']}:\n  {row.get('command', '')}" for row in rows]
  versions = [f"{name} {version}" for name, version in _versions(rows).items()]
  return [
    *blocks,
    Listing("The command behind every row", commands),
    Listing("Versions", versions),
    _settings(settings),
  ]


def _versions(rows: Sequence[Row]) -> dict[str, str]:
  return {name: version for row in rows for name, version in row["versions"].items()}


def _facts(row: Row) -> str:
  settings = row["settings"]
  sizes = f"B{settings['batch']} N{settings['heads']} K{settings['kv_heads']} H{settings['head_width']}"
  pages = " · huge pages" if settings["huge_pages"] else ""
  cores = f"{row['cores']} core{'s' * (row['cores'] != 1)}"
  return f"{row['device']} · {cores} · {sizes} · {settings['dtype']} · commit {row['commit']}{pages}"


def _settings(settings: dict[str, Any]) -> Grid:
  return Grid(["setting", "value"], [[name, str(value)] for name, value in settings.items()], 2)


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
