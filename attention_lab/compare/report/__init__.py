"""Writes the report of a workdir: `report.md` and `report.html` from its `results.jsonl`."""

import os
import pathlib

from attention_lab.compare.report import crossovers, html, markdown, tables
from attention_lab.compare.schedule import grid
from attention_lab.results import records

RESULTS = records.RESULTS


def write(workdir: str | os.PathLike[str], benchmark: str | os.PathLike[str] | None = None) -> list[pathlib.Path]:
  """Writes both reports, also of an unfinished comparison, and returns their paths; ValueError without a row.

  benchmark: the workdir of a benchmark whose crossover lengths are shown; None = the one that the workdir's
  `benchmark.json` names, if it has this file. ValueError for a benchmark without rows.
  """
  folder = pathlib.Path(workdir)
  held = records.read(folder / RESULTS)
  if not held.rows:
    raise ValueError(f"{folder / RESULTS} holds no row: run a comparison with --workdir={folder} first")
  cells = grid.read(folder)
  order = list(dict.fromkeys([cell.attention for cell in cells] + [row["attention"] for row in held.rows]))
  built = tables.build(held.rows, order)
  notes = _notes(held, cells, built)
  measured = benchmark or crossovers.named(folder)
  crossings = crossovers.read(measured, order) if measured else None
  pages = {
    "report.md": markdown.page(built, notes, order, crossings),
    "report.html": html.page(built, notes, order, crossings),
  }
  for name, content in pages.items():
    partial = folder / f".{name}.{os.getpid()}"
    partial.write_text(content, encoding="utf-8")
    partial.replace(folder / name)
  return [folder / name for name in pages]


def _notes(held: records.Records, cells: list[grid.Cell], built: list[tables.Table]) -> list[str]:
  notes = []
  left = sum(len(cell.seeds) for cell in grid.pending(cells, held.rows))
  if left:
    total = sum(len(cell.seeds) for cell in cells)
    notes.append(f"Unfinished: {left} of {total} runs are missing or failed; the same command goes on with them.")
  names = [table.task for table in built]
  notes += [
    f"{task}: rows of different commits, data or configurations are kept apart in {names.count(task)} tables and never "
    "averaged; a new workdir gives one."
    for task in sorted({name for name in names if names.count(name) > 1})
  ]
  if held.damaged:
    lines = ", ".join(map(str, held.damaged))
    notes.append(f"{RESULTS}: line {lines} is incomplete, as a killed run leaves it, and is left out.")
  extra = len(held.rows) - len({records.key(row) for row in held.rows})
  if extra:
    notes.append(f"{RESULTS} holds {extra} repeated row{'s' * (extra > 1)}; each run is counted once.")
  return notes
