"""All tasks at a glance: the score of each variant on each task, and where no row is told to be better."""

from collections.abc import Sequence

from attention_lab.compare.report import columns, verdict
from attention_lab.compare.report.tables import Table
from attention_lab.results import formatting

FEWEST = 2  # tasks
MARK = "◆"
WORDS = (
  f"Test score, mean ± 95 % over seeds. {MARK}: best, or not told from the best by these seeds. A task's own table has "
  "its metric, its controls and the commands behind its numbers."
)


def sheet(tables: Sequence[Table], order: Sequence[str]) -> columns.Sheet | None:
  """Variants by tasks; None for a single table."""
  if len(tables) < FEWEST:
    return None
  names = [name for name in order if any(entry.attention == name for table in tables for entry in table.entries)]
  head = ["variant", *(columns.heading(table) for table in tables), f"{MARK} on"]
  rows = []
  for name in names:
    cells = [_cell(table, name) for table in tables]
    marked = sum(cell.startswith(MARK) for cell in cells)
    rows.append([f"`{name}`", *cells, f"{marked} of {sum(cell != '' for cell in cells)}"])
  return columns.Sheet(head, rows)


def _cell(table: Table, name: str) -> str:
  entry = next((entry for entry in table.entries if entry.attention == name), None)
  if entry is None:
    return ""
  if not entry.interval:
    return entry.standing
  shown = formatting.plus_minus(entry.interval, columns.digits(table))
  return f"{MARK} {shown}" if verdict.standing(entry, table) in ("best", "tied best") else shown
