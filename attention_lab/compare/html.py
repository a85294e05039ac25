"""The report as one page that needs nothing else: no script, no font, no file beside it."""

import html
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.compare import columns, numerals, plots, protocol, verdict
from attention_lab.compare.tables import Entry, Table

WORDS = {"tied best": "tied", "best": "best", "refused": "off", "failed": "off", "diverged": "off"}


BAR = 3  # the column of the drawn intervals


def page(tables: Sequence[Table], notes: Sequence[str], order: Sequence[str]) -> str:
  """The whole of report.html; `order` numbers the variants, so that each keeps its colour and mark."""
  numbers = {name: number for number, name in enumerate(order)}
  style = importlib.resources.files("attention_lab.compare").joinpath("report.css").read_text(encoding="utf-8")
  sections = "".join(_section(table, numbers) for table in tables)
  reading = "".join(f"<p>{html.escape(text)}</p>" for text in protocol.READING)
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>Attention variants compared</title><style>\n{style}</style></head><body><main>"
    f"{_header(tables)}{_notes(notes)}{_verdicts(tables)}{sections}"
    f'<section class="reading"><h2>How to read this</h2>{reading}</section></main></body></html>\n'
  )


def _header(tables: Sequence[Table]) -> str:
  variants = {entry.attention for table in tables for entry in table.entries}
  seeds = sorted({len(table.seeds) for table in tables})
  counts = [
    (len({table.task for table in tables}), "task"),
    (len(variants), "variant"),
    (seeds[-1] if seeds else 0, "seed"),
  ]
  facts = [f"{count} {name}{'s' * (count != 1)}" for count, name in counts]
  facts += sorted({str(row[name]) for table in tables for row in table.done for name in ("device",) if row.get(name)})
  facts += sorted({f"commit {row['commit']}" for table in tables for row in table.done if row.get("commit")})
  return f"<header><h1>Attention variants compared</h1><p>{' · '.join(map(html.escape, facts))}</p></header>"


def _notes(notes: Sequence[str]) -> str:
  items = "".join(f"<li>{_marked(note)}</li>" for note in notes)
  return f'<aside class="notes"><ul>{items}</ul></aside>' if notes else ""


def _verdicts(tables: Sequence[Table]) -> str:
  cards = []
  for table in tables:
    first, *rest = verdict.sentences(table)
    more = "".join(f"<p>{_marked(sentence)}</p>" for sentence in rest)
    title = f'<h3><a href="#{_anchor(table)}">{html.escape(columns.heading(table))}</a></h3>'
    caution = f'<p class="caution">{_marked(verdict.caution(table))}</p>'
    cards.append(f'<article>{title}<p class="lead">{_marked(first)}</p>{more}{caution}</article>')
  return f'<section class="verdicts" aria-label="Verdicts">{"".join(cards)}</section>'


def _section(table: Table, numbers: Mapping[str, int]) -> str:
  return (
    f'<section id="{_anchor(table)}"><h2>{html.escape(columns.heading(table))}</h2>'
    f'<p class="sub">{html.escape(columns.direction(table))}</p>'
    f"{_notes(table.notes)}{_table(table, numbers)}{_figures(table, numbers)}{_runs(table)}{_protocol(table)}</section>"
  )


def _table(table: Table, numbers: Mapping[str, int]) -> str:
  titles = ["variant", "standing", *columns.titles(table)]
  rows = [(entry.interval.mean, _row(entry, table, numbers[entry.attention])) for entry in table.scored]
  rows += [(value, _reference(name, value, table, len(titles))) for name, value in table.references.items()]
  ranked = [row for _, row in sorted(rows, key=lambda row: row[0], reverse=table.higher_is_better)]
  ranked += [_missing(entry, numbers[entry.attention], len(titles)) for entry in table.entries if not entry.interval]
  ends = "".join(f"<span>{numerals.score(end, 2)}</span>" for end in plots.scale(table)) if table.scored else ""
  head = [f'<th scope="col" class="{"number" if n > 1 else ""}">{_marked(one)}</th>' for n, one in enumerate(titles)]
  head.insert(BAR, f'<th scope="col" class="bar"><span class="ends">{ends}</span></th>')
  body = f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(ranked)}</tbody>"
  return f'<div class="scroll" tabindex="0"><table>{body}</table></div>'


def _row(entry: Entry, table: Table, number: int) -> str:
  cells = [f'<td class="number">{html.escape(cell)}</td>' for cell in columns.cells(entry, table)]
  cells.insert(BAR - 2, f'<td class="bar">{plots.bar(entry, table, number)}</td>')
  return f"<tr>{_name(entry, number)}{_standing(verdict.standing(entry, table))}{''.join(cells)}</tr>"


def _reference(name: str, value: float, table: Table, width: int) -> str:
  score = f'<td class="number">{numerals.score(value, columns.digits(table))}</td><td colspan="{width - 2}"></td>'
  return f'<tr class="control"><th scope="row">{html.escape(name)}</th><td>reference</td>{score}</tr>'


def _missing(entry: Entry, number: int, width: int) -> str:
  reason = html.escape("; ".join(entry.reasons) or "no finite score on some seed")
  cells = f'{_standing(entry.standing)}<td colspan="{width - 1}">{reason}</td>'
  return f'<tr class="missing">{_name(entry, number)}{cells}</tr>'


def _name(entry: Entry, number: int) -> str:
  name = re.sub(r"([|+(])", r"\1<wbr>", html.escape(entry.attention))
  return f'<th scope="row"><span class="variant">{plots.swatch(number)}<code>{name}</code></span></th>'


def _standing(word: str) -> str:
  return f'<td><span class="standing {WORDS.get(word, "")}">{word}</span></td>'


def _figures(table: Table, numbers: Mapping[str, int]) -> str:
  pictures = [
    (plots.curves(table, numbers), "Learning", "Validation score, mean over seeds; band: lowest to highest seed."),
    (
      plots.differences(table, numbers),
      "Distance to the best",
      "Paired by seed. Thick: 95 %; thin: corrected for all pairs of rows. A thin line that touches zero is a tie.",
    ),
    (
      plots.quality(table, numbers, "flops_per_token"),
      "Quality against computation",
      "Test score with its 95 % interval.",
    ),
    (plots.quality(table, numbers, "time_ratio"), "Quality against time", "Test score with its 95 % interval."),
  ]
  drawn = [
    f"<figure><figcaption><b>{title}</b> {html.escape(caption)}</figcaption>{picture}</figure>"
    for picture, title, caption in pictures
    if picture
  ]
  return f'<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def _runs(table: Table) -> str:
  parts = []
  for entry in table.entries:
    runs = "".join(f"<dt>seed {row['seed']} · {_outcome(row)}</dt><dd>{_command(row)}</dd>" for row in entry.rows)
    parts.append(f"<details><summary><code>{html.escape(entry.attention)}</code></summary><dl>{runs}</dl></details>")
  return f'<div class="runs"><h3>The command behind every number</h3>{"".join(parts)}</div>'


def _command(row: Mapping[str, Any]) -> str:
  return f"<pre><code>{html.escape(row.get('command') or 'not recorded')}</code></pre>"


def _outcome(row: Mapping[str, Any]) -> str:
  if row["status"] != "done":
    return html.escape(f"{row['status']}: {row.get('reason') or 'no reason given'}")
  metrics = [
    f"{name.replace('_', ' ')} {'–' if value is None else format(value, '.4g')}"
    for name, value in row["metrics"].items()
  ]
  return html.escape(", ".join(metrics))


def _protocol(table: Table) -> str:
  items = "".join(
    f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>" for name, value in protocol.facts(table)
  )
  every = "".join(
    f"<tr><td><code>{html.escape(flag)}</code></td><td>{html.escape(value)}</td></tr>"
    for flag, value in protocol.settings(table).items()
  )
  more = (
    f"<details><summary>Every field of the configuration</summary><table>{every}</table></details>" if every else ""
  )
  return f'<h3>Protocol</h3><dl class="protocol">{items}</dl>{more}'


def _anchor(table: Table) -> str:
  return re.sub(r"[^A-Za-z0-9_-]+", "-", columns.heading(table)).strip("-")


def _marked(text: str) -> str:
  kept = html.escape(text).replace("Holm p", "Holm\N{NO-BREAK SPACE}p")
  kept = re.sub(r" (=|±|&lt;) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", kept)
  return re.sub(r"`([^`]*)`", r"<code>\1</code>", kept).replace("\n", "<br>")
