"""The report of a comparison: `report.md`, `report.html` and its figures, from the `results.jsonl` of a workdir."""

import os
import pathlib
from collections.abc import Sequence

from attention_lab.compare.report import columns, crossovers, page, tables
from attention_lab.compare.schedule import grid
from attention_lab.results import pages, records

RESULTS = records.RESULTS


def write(
  workdir: str | os.PathLike[str],
  benchmark: str | os.PathLike[str] | None = None,
  formats: Sequence[str] = ("svg",),
) -> list[pathlib.Path]:
  """Writes the report of a comparison, also of an unfinished one.

  Args:
    workdir: the folder of its rows.
    benchmark: the workdir of a benchmark whose crossover lengths are shown; None = the one that the workdir's
      `benchmark.json` names, if it has this file.
    formats: of the figures' files, `svg`, `png` or `pdf`.

  Returns:
    The paths of report.md, report.html, and the figures.

  Raises:
    ValueError: no row, rows that were not treated alike, or a benchmark without rows.

  """
  return pages.write(content(workdir, benchmark), workdir, formats)


def content(workdir: str | os.PathLike[str], benchmark: str | os.PathLike[str] | None = None) -> pages.Page:
  """The report's page with its figures, of arguments and errors as `write` has them."""
  folder = pathlib.Path(workdir)
  held = records.read(folder / RESULTS)
  if not held.rows:
    raise ValueError(f"{folder / RESULTS} holds no row: run a comparison with --workdir={folder} first")
  cells = grid.read(folder)
  order = list(dict.fromkeys([cell.attention for cell in cells] + [row["attention"] for row in held.rows]))
  built = tables.build(held.rows, order)
  measured = benchmark or crossovers.named(folder)
  crossings = crossovers.read(measured, order) if measured else None
  return page.build(built, _notes(held, cells, built), order, crossings)


def summary(workdir: str | os.PathLike[str]) -> str:
  """The table of each task as plain text: rows in order of their scores, with standing and score, no costs."""
  rows = records.read(pathlib.Path(workdir) / RESULTS).rows
  order = list(dict.fromkeys(row["attention"] for row in rows))
  blocks = []
  for table in tables.build(rows, order):
    sheet = columns.scores(table, {})
    lines = [[cell.replace("\n", " ").replace("`", "") for cell in line[:3]] for line in [sheet.head, *sheet.rows]]
    widths = [max(len(line[index]) for line in lines) for index in (0, 1)]
    text = "\n".join(f"  {name:{widths[0]}}  {standing:{widths[1]}}  {score}" for name, standing, score in lines)
    blocks.append(f"{columns.heading(table)}: {columns.direction(table)}\n{text}")
  return "\n\n".join(blocks)


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
