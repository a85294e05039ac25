"""Pieces of a page of HTML: text with `backticks`, plain tables, figures, notes."""

import html
import re
from collections.abc import Iterable, Mapping, Sequence

from attention_lab.compare.report import columns, plots

YES, NO = "✓", "–"
SPOKEN = {YES: "yes", NO: "no"}


def marked(text: str) -> str:
  """Escaped text, `backticks` as code, line breaks kept; what belongs together is not broken."""
  kept = html.escape(text).replace("Holm p", "Holm\N{NO-BREAK SPACE}p")
  kept = re.sub(r" (=|±|&lt;) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", kept)
  return re.sub(r"`([^`]*)`", lambda match: f"<code>{breakable(match[1])}</code>", kept).replace("\n", "<br>")


def breakable(escaped: str) -> str:
  """A spec that may be broken after its signs."""
  return re.sub(r"([|+@,])", r"\1<wbr>", escaped)


def paragraphs(texts: Iterable[str], kind: str = "") -> str:
  """Each text as a paragraph."""
  named = f' class="{kind}"' if kind else ""
  return "".join(f"<p{named}>{marked(text)}</p>" for text in texts)


def notes(texts: Sequence[str]) -> str:
  """A box of remarks; nothing without any."""
  items = "".join(f"<li>{marked(text)}</li>" for text in texts)
  return f'<aside class="notes"><ul>{items}</ul></aside>' if texts else ""


def variant(name: str, number: int) -> str:
  """The head of a row: the mark and the name of a variant."""
  shown = f"<code>{breakable(html.escape(name))}</code>"
  return f'<th scope="row"><span class="variant">{plots.swatch(number)}{shown}</span></th>'


def sheet(content: columns.Sheet, kind: str, numbers: Mapping[str, int]) -> str:
  """A plain table; a first cell that is a row of the report has its mark."""
  head = "".join(f'<th scope="col"{_kind(n, content)}>{marked(cell)}</th>' for n, cell in enumerate(content.head))
  rows = "".join(f"<tr>{_head(row[0], numbers)}{_cells(row, content)}</tr>" for row in content.rows)
  table = f'<table class="{kind}"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
  return f'<div class="scroll" tabindex="0">{table}</div>'


def figure(content: plots.Figure) -> str:
  """A picture with its caption above and its sentences below."""
  bare = "" if content.caption else ' class="bare"'
  caption = f"<figcaption{bare}><b>{html.escape(content.title)}</b> {html.escape(content.caption)}</figcaption>"
  wide = ' class="wide"' if content.wide else ""
  picture = f'<div class="picture">{content.picture}</div>'
  return f"<figure{wide}>{caption}{picture}{paragraphs(content.words)}</figure>"


def command(text: str) -> str:
  """A command, to be copied whole."""
  return f"<pre><code>{html.escape(text)}</code></pre>"


def _head(cell: str, numbers: Mapping[str, int]) -> str:
  name = cell.strip("`")
  return variant(name, numbers[name]) if name in numbers else f'<th scope="row">{marked(cell)}</th>'


def _cells(row: Sequence[str], content: columns.Sheet) -> str:
  return "".join(f"<td{_kind(n, content, cell)}>{_cell(cell)}</td>" for n, cell in enumerate(row[1:], 1))


def _cell(cell: str) -> str:
  """The cell's text; a mark alone is also said in a word that is read aloud."""
  return (
    f'<span aria-hidden="true">{cell}</span><span class="aloud">{SPOKEN[cell]}</span>'
    if cell in SPOKEN
    else marked(cell)
  )


def _kind(column: int, content: columns.Sheet, cell: str = "") -> str:
  kinds = ["number"] if column >= content.texts else []
  kinds += ["yes"] if cell == YES else ["no"] if cell == NO else []
  return f' class="{" ".join(kinds)}"' if kinds else ""
