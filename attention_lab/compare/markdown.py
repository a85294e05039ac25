"""The report as plain Markdown: the tables of the page without its pictures."""

from collections.abc import Iterable, Sequence

from attention_lab.compare import columns, numerals, protocol, verdict
from attention_lab.compare.tables import Table


def page(tables: Sequence[Table], notes: Sequence[str]) -> str:
  """The whole of report.md."""
  parts = ["# Attention variants compared", *(f"> {note}" for note in notes)]
  for table in tables:
    parts += [f"## {columns.heading(table)}", " ".join(verdict.sentences(table)), f"*{verdict.caution(table)}*"]
    parts += [f"> {note}" for note in table.notes]
    parts += [f"Score: {columns.direction(table)}.", _table(table), "### Commands", _commands(table)]
    parts += ["### Protocol", _grid(("", ""), protocol.facts(table))]
  return "\n\n".join([*parts, "## How to read this", *protocol.READING]) + "\n"


def _table(table: Table) -> str:
  sign = -1 if table.higher_is_better else 1
  titles = [title.replace("\n", " ") for title in columns.titles(table)]
  blank = [""] * (len(titles) - 1)
  ranked = [
    (sign * entry.interval.mean, [f"`{entry.attention}`", verdict.standing(entry, table), *columns.cells(entry, table)])
    for entry in table.scored
  ]
  ranked += [
    (sign * value, [name, "reference", numerals.score(value, columns.digits(table)), *blank])
    for name, value in table.references.items()
  ]
  rest = [
    [f"`{entry.attention}`", entry.standing, "; ".join(entry.reasons), *blank]
    for entry in table.entries
    if not entry.interval
  ]
  return _grid(["variant", "standing", *titles], [*(row for _, row in sorted(ranked, key=lambda one: one[0])), *rest])


def _commands(table: Table) -> str:
  lines = [f"{row['attention']}, seed {row['seed']}:\n  {row['command']}" for row in table.rows if row.get("command")]
  return "```text\n" + "\n".join(lines) + "\n```"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
