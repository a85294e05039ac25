"""The section of one table on the page: the table, the words under it, its pictures, its commands, its protocol."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.compare.report import (
  captions,
  columns,
  curves,
  differences,
  frontiers,
  lengths,
  locality,
  markup,
  plots,
  protocol,
  verdict,
)
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting

WORDS = {"tied best": "tied", "best": "best", "refused": "off", "failed": "off", "diverged": "off"}
LONG = 70  # letters from which on a value of the protocol has a line of its own
BAR = 3  # the column of the drawn intervals


def section(table: Table, numbers: plots.Numbers) -> str:
  """Everything about one table."""
  parts = [
    f"<h2>{html.escape(columns.heading(table))}</h2>",
    f'<p class="sub">{html.escape(columns.direction(table))}</p>',
    markup.notes(table.notes),
    _table(table, numbers),
    f'<div class="caption">{markup.paragraphs(captions.sentences(table))}</div>',
    _given(table, numbers),
    _figures(table, numbers),
    _fronts(table, numbers),
    _lengths(table, numbers),
    _runs(table),
    _protocol(table),
  ]
  return f'<section id="{anchor(table)}" class="task">{"".join(parts)}</section>'


def anchor(table: Table) -> str:
  """The id of a table's section."""
  return plots.identifier(columns.heading(table))


def _table(table: Table, numbers: plots.Numbers) -> str:
  titles = ["variant", "standing", *columns.titles(table)]
  rows = [(entry.interval.mean, _row(entry, table, numbers[entry.attention])) for entry in table.scored]
  rows += [(value, _reference(name, value, table, len(titles))) for name, value in table.references.items()]
  ranked = [row for _, row in sorted(rows, key=lambda row: row[0], reverse=table.higher_is_better)]
  ranked += [_missing(entry, numbers[entry.attention], len(titles)) for entry in table.entries if not entry.interval]
  ends = "".join(f"<span>{formatting.score(end, 2)}</span>" for end in plots.scale(table)) if table.scored else ""
  head = [
    f'<th scope="col" class="{"number" if n > 1 else ""}">{markup.marked(one)}</th>' for n, one in enumerate(titles)
  ]
  head.insert(BAR, f'<th scope="col" class="bar"><span class="ends">{ends}</span></th>')
  body = f"<thead><tr>{''.join(head)}</tr></thead><tbody>{''.join(ranked)}</tbody>"
  return f'<div class="scroll" tabindex="0"><table class="scores">{body}</table></div>'


def _row(entry: Entry, table: Table, number: int) -> str:
  cells = [f'<td class="number">{html.escape(cell)}</td>' for cell in columns.cells(entry, table)]
  cells.insert(BAR - 2, f'<td class="bar">{plots.bar(entry, table, number)}</td>')
  name = markup.variant(entry.attention, number)
  return f"<tr>{name}{_standing(verdict.standing(entry, table))}{''.join(cells)}</tr>"


def _reference(name: str, value: float, table: Table, width: int) -> str:
  score = f'<td class="number">{formatting.score(value, columns.digits(table))}</td><td colspan="{width - 2}"></td>'
  return f'<tr class="control"><th scope="row">{html.escape(name)}</th><td>reference</td>{score}</tr>'


def _missing(entry: Entry, number: int, width: int) -> str:
  reason = markup.marked("; ".join(entry.reasons) or "no finite score on some seed")
  cells = f'{_standing(entry.standing)}<td colspan="{width - 1}">{reason}</td>'
  return f'<tr class="missing">{markup.variant(entry.attention, number)}{cells}</tr>'


def _standing(word: str) -> str:
  return f'<td><span class="standing {WORDS.get(word, "")}">{word}</span></td>'


def _given(table: Table, numbers: plots.Numbers) -> str:
  found = captions.given(table)
  return f"<h3>What each row was given</h3>{markup.sheet(found, 'given', numbers)}" if found else ""


def _figures(table: Table, numbers: plots.Numbers) -> str:
  pictures = [curves.figure(table, numbers), differences.figure(table, numbers), locality.figure(table, numbers)]
  return _drawn([one for one in pictures if one])


def _fronts(table: Table, numbers: plots.Numbers) -> str:
  found = frontiers.figures(table, numbers)
  words = markup.paragraphs([frontiers.words(table)], "hint")
  return f"<h3>{frontiers.TITLE}</h3>{words}{_drawn(found)}" if found else ""


def _drawn(figures: Sequence[plots.Figure]) -> str:
  return f'<div class="figures">{"".join(map(markup.figure, figures))}</div>' if figures else ""


def _lengths(table: Table, numbers: plots.Numbers) -> str:
  found = lengths.sheet(table)
  if not found:
    return ""
  picture = lengths.figure(table, numbers)
  drawn = _drawn([picture] if picture else [])
  words = markup.paragraphs([lengths.words(table)], "hint")
  return f"<h3>Other lengths</h3>{words}{markup.sheet(found, 'lengths', numbers)}{drawn}"


def _runs(table: Table) -> str:
  parts = []
  for entry in table.entries:
    runs = "".join(f"<dt>seed {row['seed']} · {_outcome(row)}</dt><dd>{_command(row)}</dd>" for row in entry.rows)
    parts.append(f"<details><summary><code>{html.escape(entry.attention)}</code></summary><dl>{runs}</dl></details>")
  return f'<div class="runs"><h3>The command behind every number</h3>{"".join(parts)}</div>'


def _command(row: Mapping[str, Any]) -> str:
  return markup.command(row.get("command") or "not recorded")


def _outcome(row: Mapping[str, Any]) -> str:
  if row["status"] != "done":
    return html.escape(f"{row['status']}: {row.get('reason') or 'no reason given'}")
  metrics = [
    f"{name.replace('_', ' ')} {'–' if value is None else format(value, '.4g')}"
    for name, value in row["metrics"].items()
  ]
  return html.escape(", ".join(metrics))


def _protocol(table: Table) -> str:
  items = "".join(_fact(name, value) for name, value in protocol.facts(table))
  every = "".join(
    f"<tr><td><code>{html.escape(flag)}</code></td><td>{html.escape(value)}</td></tr>"
    for flag, value in protocol.settings(table).items()
  )
  more = (
    f"<details><summary>Every field of the configuration</summary><table>{every}</table></details>" if every else ""
  )
  return f'<h3>Protocol</h3><dl class="protocol">{items}</dl>{more}'


def _fact(name: str, value: str) -> str:
  kind = ' class="long"' if len(value) > LONG else ""
  return f"<div{kind}><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
