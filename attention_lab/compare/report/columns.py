"""The words and numbers of a table, whatever it is written in."""

import dataclasses
from collections.abc import Callable, Sequence

from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting


@dataclasses.dataclass(frozen=True)
class Sheet:
  """A plain table of words and numbers; `texts` columns at the left are words. Names of rows stand in `backticks`."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  texts: int = 1


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


def titles(table: Table) -> list[str]:
  """Titles of the columns after variant and standing."""
  return [column.title for column in _columns(table)]


def cells(entry: Entry, table: Table) -> list[str]:
  """The cells of a scored row under `titles`."""
  return [column.cell(entry) for column in _columns(table)]


def digits(table: Table) -> int:
  """Decimals of the scores of a table."""
  return formatting.decimals(entry.interval for entry in table.scored)


def _columns(table: Table) -> list[Column]:
  """The score always; of what lies behind it, what some row has."""
  places = digits(table)
  always = [
    Column(f"{formatting.metric(table.primary)}\nmean ± 95 %", lambda one: formatting.plus_minus(one.interval, places)),
    Column("behind the best\n[95 %, Holm]", lambda one: _gap(one, places)),
    Column("p\n(Holm)", _p_value),
    *([Column("g", _effect)] if any(entry.effect is not None for entry in table.scored) else []),
    Column("seeds\n≥ 0.99" if table.jumps else "seeds", lambda one: _seeds(one, table.jumps)),
  ]
  costs = [
    Column("parameters", _cost("parameters", formatting.thousands)),
    Column("FLOPs\nper token", _cost("flops_per_token", formatting.thousands)),
    Column(f"step time\n÷ `{table.baseline or 'first'}`", lambda one: formatting.ratio(one.time_ratio)),
    Column("peak\nMiB", _cost("peak_bytes", formatting.mebibytes)),
    Column("state\nKiB", _cost("state_bytes", lambda value: "–" if value is None else f"{value / 2**10:.3g}")),
  ]
  return always + [one for one in costs if any(one.cell(entry) != "–" for entry in table.scored)]


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
