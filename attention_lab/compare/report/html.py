"""The report as one page that needs nothing else: no script, no font, no file beside it."""

import html
import importlib.resources
from collections.abc import Sequence

from attention_lab.compare.report import (
  capability,
  columns,
  crossovers,
  families,
  markup,
  overview,
  plots,
  protocol,
  sections,
  verdict,
)
from attention_lab.compare.report.tables import Table

SHOWN = 4  # sentences of a verdict after the first that are not folded away


def page(
  tables: Sequence[Table], notes: Sequence[str], order: Sequence[str], crossings: crossovers.Crossovers | None
) -> str:
  """The whole of report.html; `order` numbers the variants, so that each keeps its colour and mark."""
  numbers = families.numbers(order)
  style = importlib.resources.files("attention_lab.results").joinpath("page.css").read_text(encoding="utf-8")
  parts = [
    _header(tables),
    markup.notes(notes),
    _verdicts(tables),
    _overview(tables, order, numbers),
    *(sections.section(table, numbers) for table in tables),
    _crossovers(crossings, _by_spec(numbers)),
    _capabilities(order, _by_spec(numbers)),
    f'<section class="reading"><h2>How to read this</h2>{markup.paragraphs(protocol.READING)}</section>',
  ]
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Attention variants compared</title><style>\n{style}</style></head><body><main>"
    f"{''.join(parts)}</main></body></html>\n"
  )


def _by_spec(numbers: plots.Numbers) -> plots.Numbers:
  """The numbers of specs: those of the first row of each."""
  first = {name.partition("@")[0]: number for name, number in reversed(numbers.items())}
  return {**first, **numbers}


def _header(tables: Sequence[Table]) -> str:
  variants = {entry.attention for table in tables for entry in table.entries}
  seeds = sorted({len(table.seeds) for table in tables})
  counts = [
    (len({table.task for table in tables}), "task"),
    (len(variants), "row"),
    (seeds[-1] if seeds else 0, "seed"),
  ]
  facts = [f"{count} {name}{'s' * (count != 1)}" for count, name in counts]
  facts += sorted({str(row[name]) for table in tables for row in table.done for name in ("device",) if row.get(name)})
  facts += sorted({f"commit {row['commit']}" for table in tables for row in table.done if row.get("commit")})
  return f"<header><h1>Attention variants compared</h1><p>{' · '.join(map(html.escape, facts))}</p></header>"


def _verdicts(tables: Sequence[Table]) -> str:
  cards = []
  for table in tables:
    first, *rest = verdict.sentences(table)
    title = f'<h3><a href="#{sections.anchor(table)}">{html.escape(columns.heading(table))}</a></h3>'
    lead, more = markup.paragraphs([first], "lead"), markup.paragraphs(rest[:SHOWN])
    behind = markup.paragraphs(rest[SHOWN:])
    fold = f"<details><summary>Controls, tuning, what could not run</summary>{behind}</details>" if behind else ""
    caution = markup.paragraphs([verdict.caution(table)], "caution")
    cards.append(f"<article>{title}{lead}{more}{fold}{caution}</article>")
  return f'<section class="verdicts" aria-label="Verdicts">{"".join(cards)}</section>'


def _overview(tables: Sequence[Table], order: Sequence[str], numbers: plots.Numbers) -> str:
  found = overview.sheet(tables, order)
  if not found:
    return ""
  words = markup.paragraphs([overview.WORDS], "hint")
  return f'<section id="overview"><h2>All tasks</h2>{words}{markup.sheet(found, "overview", numbers)}</section>'


def _crossovers(found: crossovers.Crossovers | None, numbers: plots.Numbers) -> str:
  if not found:
    return ""
  table = markup.sheet(found.sheet, "crossovers", numbers) if found.sheet else ""
  runs = "".join(f"<dt>{html.escape(what)}</dt><dd>{markup.command(command)}</dd>" for what, command in found.commands)
  commands = f"<details><summary>The commands behind these lengths</summary><dl>{runs}</dl></details>" if runs else ""
  words = markup.paragraphs(found.words, "hint")
  return (
    f'<section id="crossovers"><h2>Crossover lengths</h2>{words}{table}<div class="runs">{commands}</div></section>'
  )


def _capabilities(order: Sequence[str], numbers: plots.Numbers) -> str:
  found = capability.sheet(order)
  if not found:
    return ""
  words = markup.paragraphs(capability.words(order), "hint")
  table = markup.sheet(found, "capabilities", numbers)
  return f'<section id="capabilities"><h2>What the variants claim</h2>{words}{table}</section>'
