"""The report as plain Markdown: all that the page says in words and tables."""

from collections.abc import Iterable, Sequence

from attention_lab.compare.report import (
  capability,
  captions,
  columns,
  crossovers,
  lengths,
  locality,
  overview,
  pareto,
  protocol,
  verdict,
)
from attention_lab.compare.report.tables import Table
from attention_lab.results import formatting


def page(
  tables: Sequence[Table], notes: Sequence[str], order: Sequence[str], crossings: crossovers.Crossovers | None
) -> str:
  """The whole of report.md; `order` lists the variants as they were asked for."""
  parts = ["# Attention variants compared", *(f"> {note}" for note in notes)]
  parts += ["## Verdicts", *(f"*{columns.heading(table)}*: {_verdict(table)}" for table in tables)]
  across = overview.sheet(tables, order)
  parts += ["## All tasks", overview.WORDS, _sheet(across)] if across else []
  for table in tables:
    parts += _section(table)
  if crossings:
    parts += ["## Crossover lengths", *crossings.words, *([_sheet(crossings.sheet)] if crossings.sheet else [])]
    parts += [_listing(crossings.commands)] if crossings.commands else []
  claims = capability.sheet(order)
  parts += ["## What the variants claim", *capability.words(order), _sheet(claims)] if claims else []
  return "\n\n".join([*parts, "## How to read this", *protocol.READING]) + "\n"


def _verdict(table: Table) -> str:
  return " ".join([*verdict.sentences(table), f"*{verdict.caution(table)}*"])


def _section(table: Table) -> list[str]:
  parts = [f"## {columns.heading(table)}"]
  parts += [f"> {note}" for note in table.notes]
  parts += [f"Score: {columns.direction(table)}.", _table(table), " ".join(captions.sentences(table))]
  given, at, digits = captions.given(table), lengths.sheet(table), columns.digits(table)
  parts += ["### What each row was given", _sheet(given)] if given else []
  fronts = [f"- {pareto.sentence(front, digits)}" for front in pareto.fronts(table)]
  parts += ["### Quality against cost", "\n".join(fronts)] if fronts else []
  range_ = locality.sentences(table)
  parts += ["### Locality", " ".join(range_)] if range_ else []
  parts += ["### Other lengths", lengths.words(table), _sheet(at)] if at else []
  runs = [(f"{row['attention']}, seed {row['seed']}", row["command"]) for row in table.rows if row.get("command")]
  parts += ["### Commands", _listing(runs), "### Protocol", _grid(("", ""), protocol.facts(table))]
  return [part for part in parts if part]


def _table(table: Table) -> str:
  sign = -1 if table.higher_is_better else 1
  titles = [title.replace("\n", " ") for title in columns.titles(table)]
  blank = [""] * (len(titles) - 1)
  ranked = [
    (sign * entry.interval.mean, [f"`{entry.attention}`", verdict.standing(entry, table), *columns.cells(entry, table)])
    for entry in table.scored
  ]
  ranked += [
    (sign * value, [name, "reference", formatting.score(value, columns.digits(table)), *blank])
    for name, value in table.references.items()
  ]
  rest = [
    [f"`{entry.attention}`", entry.standing, "; ".join(entry.reasons), *blank]
    for entry in table.entries
    if not entry.interval
  ]
  return _grid(["variant", "standing", *titles], [*(row for _, row in sorted(ranked, key=lambda one: one[0])), *rest])


def _sheet(content: columns.Sheet) -> str:
  return _grid([title.replace("-\n", "-").replace("\n", " ") for title in content.head], content.rows)


def _listing(runs: Iterable[tuple[str, str]]) -> str:
  return "```text\n" + "\n".join(f"{what}:\n  {command}" for what, command in runs) + "\n```"


def _grid(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
