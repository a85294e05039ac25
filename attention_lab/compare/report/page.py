"""The page of a comparison: verdicts, all tasks at a glance, then for each task its figures, tables and protocol."""

from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.compare.report import (
  capability,
  captions,
  columns,
  crossovers,
  families,
  lengths,
  pareto,
  pictures,
  protocol,
  verdict,
)
from attention_lab.compare.report.tables import Table
from attention_lab.results import pages
from attention_lab.results.pages import Block, Fold, Listing, Pairs, Prose, Section

FEW = 4  # tasks whose verdicts leave room for a figure on the first screen
TITLE = "Attention variants compared"


def build(
  tables: Sequence[Table], notes: Sequence[str], order: Sequence[str], crossings: crossovers.Crossovers | None
) -> pages.Page:
  """The whole page; `order` numbers the variants, so that each keeps its colour and marker."""
  numbers = families.numbers(order)
  by_spec = {**{name.partition("@")[0]: number for name, number in reversed(numbers.items())}, **numbers}
  verdicts = [Section(columns.heading(table), _verdict(table), "verdict", anchor(table)) for table in tables]
  overview = columns.overview(tables, order, numbers)
  glance = [pictures.overview(tables, order, numbers), Prose([columns.OVERVIEW], "hint"), overview]
  claims = capability.sheet(order, by_spec)
  first = [Section("Verdicts", verdicts, "verdicts"), Section("All tasks", _present(glance)) if overview else None]
  blocks: list[Block | None] = [
    Prose(notes, "notes") if notes else None,
    *(first if len(tables) <= FEW else first[::-1]),
    *(Section(columns.heading(table), _present(_table(table, numbers)), "task") for table in tables),
    _crossovers(crossings) if crossings else None,
    Section("What the variants claim", [Prose(capability.explanation(order), "hint"), claims]) if claims else None,
    Section("How to read this", [Prose(protocol.READING)], "reading"),
  ]
  return pages.Page(TITLE, _lead(tables), _present(blocks))


def anchor(table: Table) -> str:
  """The id of a table's section."""
  return pages.identifier(columns.heading(table))


def _present(blocks: Sequence[Block | None]) -> list[Block]:
  return [block for block in blocks if block is not None]


def _lead(tables: Sequence[Table]) -> str:
  variants = {entry.attention for table in tables for entry in table.entries}
  seeds = max((len(table.seeds) for table in tables), default=0)
  counts = [(len({table.task for table in tables}), "task"), (len(variants), "row"), (seeds, "seed")]
  parts = [f"{count} {name}{'s' * (count != 1)}" for count, name in counts]
  rows = [row for table in tables for row in table.done]
  parts += sorted({str(row["device"]) for row in rows if row.get("device")})
  parts += sorted({f"commit {row['commit']}" for row in rows if row.get("commit")})
  return " · ".join(parts)


def _verdict(table: Table) -> list[Block]:
  """The sentence of plain English, and behind a fold what it rests on."""
  details = [Prose(verdict.sentences(table)), Prose([verdict.caution(table)], "caution")]
  return [Prose([verdict.plain(table)], "lead"), Fold("The statistics behind it", details)]


def _table(table: Table, numbers: pictures.Numbers) -> list[Block | None]:
  """Everything about one table."""
  received, at = captions.received(table, numbers), lengths.sheet(table, numbers)
  other: list[Block | None] = (
    [Prose([lengths.explanation(table)], "hint"), at, pictures.at_lengths(table, numbers)] if at else []
  )
  return [
    Prose([f"Score: {columns.direction(table)}."], "hint"),
    Prose(table.notes, "notes") if table.notes else None,
    pictures.standings(table, numbers),
    columns.scores(table, numbers),
    Prose(captions.sentences(table), "caption"),
    Section("What each row was given", [received]) if received else None,
    pictures.learning(table, numbers),
    pictures.by_range(table, numbers),
    _fronts(table, numbers),
    Section("Other lengths", _present(other)) if at else None,
    Section("The command behind every number", [_commands(entry.attention, entry.rows) for entry in table.entries]),
    Section("Protocol", _protocol(table)),
  ]


def _fronts(table: Table, numbers: pictures.Numbers) -> Section | None:
  """The figures, the first in full and the others behind a fold, and who is on which front in words."""
  drawn = pictures.fronts(table, numbers)
  if not drawn:
    return None
  sentences = [f"- {pareto.sentence(front, columns.digits(table))}" for front in pareto.fronts(table)]
  more: list[Block] = [Fold("The other costs", drawn[1:])] if len(drawn) > 1 else []
  return Section("Quality against cost", [drawn[0], *more, Fold("The fronts in words", [Prose(sentences)])])


def _commands(attention: str, rows: Sequence[Mapping[str, Any]]) -> Listing:
  lines = [(f"{attention}, seed {row['seed']} · {_outcome(row)}", row.get("command") or "not recorded") for row in rows]
  return Listing(f"`{attention}`", lines)


def _outcome(row: Mapping[str, Any]) -> str:
  if row["status"] != "done":
    return f"{row['status']}: {row.get('reason') or 'no reason given'}"
  return ", ".join(
    f"{name.replace('_', ' ')} {'–' if value is None else format(value, '.4g')}"
    for name, value in row["metrics"].items()
  )


def _protocol(table: Table) -> list[Block]:
  every = [(f"`{flag}`", value) for flag, value in protocol.settings(table).items()]
  fields = pages.Table(["field", "value"], every, 2)
  return [Pairs(protocol.pairs(table)), *([Fold("Every field of the configuration", [fields])] if every else [])]


def _crossovers(crossings: crossovers.Crossovers) -> Section:
  sheet = [crossings.sheet] if crossings.sheet else []
  commands = [Listing("The commands behind these lengths", crossings.commands)] if crossings.commands else []
  return Section("Crossover lengths", [Prose(crossings.explanation, "hint"), *sheet, *commands])
