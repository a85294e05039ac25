"""The tables of scores on a page: all rows of one task with their costs, and all tasks at a glance."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from attention_lab.compare.report import verdict
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, pages

FEWEST = 2  # tasks of an overview
MARK = "◆"
OVERVIEW = (
  f"Test score, mean ± 95 % over seeds. {MARK}: best, or not told from the best by these seeds. A task's own table has "
  "its metric, its controls and the commands behind its numbers."
)


@dataclasses.dataclass(frozen=True)
class Column:
  """A title, with line breaks where a narrow column may have one, and the cell of a scored row; empty for none."""

  title: str
  cell: Callable[[Entry], str]


def heading(table: Table) -> str:
  """The task, and what tells this table from others of the same task."""
  binary, _, dataset = table.task.partition(":")
  name = f"{formatting.metric(binary)}: {dataset}" if dataset else formatting.metric(binary)
  return f"{name} ({table.label})" if table.label else name


def direction(table: Table) -> str:
  """The metric in words and which way is better."""
  way = "higher is better" if table.higher_is_better else "lower is better"
  return f"{formatting.metric(table.primary)} on the test split, {way}" if table.primary else "no run finished"


def scores(table: Table, numbers: Mapping[str, int]) -> pages.Table:
  """Every row of a table and every reference in order of their scores, then the rows without one and why."""
  shown, places, sign = _columns(table), digits(table), -1 if table.higher_is_better else 1
  ranked = [
    (
      sign * entry.interval.mean,
      "",
      [f"`{entry.attention}`", verdict.standing(entry, table)] + [column.cell(entry) for column in shown],
    )
    for entry in table.scored
    if entry.interval
  ]
  blank = [""] * (len(shown) - 1)
  ranked += [
    (sign * value, "control", [name, "reference", formatting.score(value, places), *blank])
    for name, value in table.references.items()
  ]
  ranked.sort(key=lambda row: row[0])
  rest = [
    [f"`{entry.attention}`", entry.standing, "; ".join(entry.reasons) or "no finite score on some seed"]
    for entry in table.entries
    if not entry.interval
  ]
  head = ["variant", "standing", *(column.title for column in shown)]
  shades = {index: shade for index, (_, shade, _) in enumerate(ranked)}
  return pages.Table(head, [*(cells for *_, cells in ranked), *rest], 2, "scores", numbers, shades)


def overview(tables: Sequence[Table], order: Sequence[str], numbers: Mapping[str, int]) -> pages.Table | None:
  """The score of each variant on each task; None for a single table."""
  if len(tables) < FEWEST:
    return None
  names = [name for name in order if any(entry.attention == name for table in tables for entry in table.entries)]
  head = ["variant", *(heading(table) for table in tables), f"{MARK} on"]
  rows = []
  for name in names:
    cells = [_overview_cell(table, name) for table in tables]
    marked = sum(cell.startswith(MARK) for cell in cells)
    rows.append([f"`{name}`", *cells, f"{marked} of {sum(cell != '' for cell in cells)}"])
  return pages.Table(head, rows, kind="overview", marks=numbers)


def digits(table: Table) -> int:
  """Decimals of the scores of a table."""
  return formatting.decimals(entry.interval for entry in table.scored)


def _overview_cell(table: Table, name: str) -> str:
  entry = next((entry for entry in table.entries if entry.attention == name), None)
  if entry is None:
    return ""
  if not entry.interval:
    return entry.standing
  shown = formatting.plus_minus(entry.interval, digits(table))
  return f"{MARK} {shown}" if verdict.standing(entry, table) in ("best", "tied best") else shown


def _columns(table: Table) -> list[Column]:
  """The score always; of what lies behind it, what some row has."""
  places = digits(table)
  always = [
    Column(
      f"{formatting.metric(table.primary)}\nmean ± 95 %", lambda entry: formatting.plus_minus(entry.interval, places)
    ),
    Column("behind the best\n[95 %, Holm]", lambda entry: _gap(entry, places)),
    Column("p\n(Holm)", _p_value),
    *([Column("g", _effect)] if any(entry.effect is not None for entry in table.scored) else []),
    Column("seeds\n≥ 0.99" if table.jumps else "seeds", lambda entry: _seeds(entry, table.jumps)),
  ]
  costs = [
    Column("parameters", _cost("parameters", formatting.thousands)),
    Column("FLOPs\nper token", _cost("flops_per_token", formatting.thousands)),
    Column(f"step time\n÷ `{table.baseline or 'first'}`", lambda entry: formatting.ratio(entry.time_ratio)),
    Column("peak\nMiB", _cost("peak_bytes", formatting.mebibytes)),
    Column("state\nKiB", _cost("state_bytes", lambda value: "–" if value is None else f"{value / 2**10:.3g}")),
  ]
  return always + [column for column in costs if any(column.cell(entry) != "–" for entry in table.scored)]


def _cost(name: str, shown: Callable[[float | None], str]) -> Callable[[Entry], str]:
  return lambda entry: shown(entry.cost(name))


def _gap(entry: Entry, places: int) -> str:
  return formatting.between(entry.difference.corrected, places) if entry.difference else ""


def _p_value(entry: Entry) -> str:
  shown = formatting.p_value(entry.difference.p_holm) if entry.difference else ""
  return shown.removeprefix("p ").removeprefix("= ")


def _effect(entry: Entry) -> str:
  return formatting.effect(entry.effect).removeprefix("g ").removeprefix("= ")


def _seeds(entry: Entry, jumps: bool) -> str:
  return f"{entry.solved} of {len(entry.scores)}" if jumps else str(len(entry.scores))
