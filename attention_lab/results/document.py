"""A report as a list of blocks, written as Markdown and as one HTML page that needs nothing else."""

import dataclasses
import html
import importlib.resources
import re
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class Heading:
  """A title; level 1 is the page's."""

  text: str
  level: int = 2


@dataclasses.dataclass(frozen=True)
class Text:
  """A paragraph; `backquotes` mark code."""

  text: str


@dataclasses.dataclass(frozen=True)
class Grid:
  """A table; a row that is shorter than the head gives its last cell the columns that are left."""

  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  texts: int = 1  # columns of words, at the left; the others are numbers


@dataclasses.dataclass(frozen=True)
class Figure:
  """A drawing, also kept in a file of its own."""

  title: str
  caption: str
  svg: str
  file: str


@dataclasses.dataclass(frozen=True)
class Listing:
  """Lines to be read as they are, under a summary."""

  title: str
  lines: Sequence[str]


Block = Heading | Text | Grid | Figure | Listing


def markdown(blocks: Sequence[Block]) -> str:
  """The blocks as Markdown; figures are links to their files."""
  return "\n\n".join(map(_markdown, blocks)) + "\n"


def page(blocks: Sequence[Block], title: str) -> str:
  """The blocks as a page; neighbouring figures stand side by side."""
  body, row = [], []
  for block in blocks:
    if isinstance(block, Figure):
      row.append(_html(block))
      continue
    body += [f'<div class="figures">{"".join(row)}</div>'] if row else []
    row = []
    body.append(_html(block))
  body += [f'<div class="figures">{"".join(row)}</div>'] if row else []
  return (
    '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f"<title>{html.escape(title)}</title><style>\n{_style()}</style></head><body><main>{''.join(body)}</main></body></html>\n"
  )


def standalone(figure: Figure) -> str:
  """The drawing as a file: with the page's colours, and its background."""
  fonts = "svg { font-family: system-ui, sans-serif; }"
  start, end = figure.svg.split(">", 1)
  style = f"<style><![CDATA[\n{_style()}{fonts}\n]]></style>"
  back = '<rect width="100%" height="100%" style="fill: var(--paper)"/>'
  return f'{start} xmlns="http://www.w3.org/2000/svg">{style}{back}{end}\n'


def _style() -> str:
  return importlib.resources.files("attention_lab.results").joinpath("page.css").read_text(encoding="utf-8")


def _markdown(block: Block) -> str:
  if isinstance(block, Heading):
    return f"{'#' * block.level} {block.text}"
  if isinstance(block, Text):
    return block.text
  if isinstance(block, Grid):
    filled = [[*row, *[""] * (len(block.head) - len(row))] for row in block.rows]
    lines = [block.head, ["---", *["---" if n < block.texts else "---:" for n in range(1, len(block.head))]], *filled]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
  if isinstance(block, Figure):
    return f"![{block.title}: {block.caption}]({block.file})"
  return f"{block.title}\n\n```text\n" + "\n".join(block.lines) + "\n```"


def _html(block: Block) -> str:
  if isinstance(block, Heading):
    return f"<h{block.level}>{_marked(block.text)}</h{block.level}>"
  if isinstance(block, Text):
    return f'<p class="sub">{_marked(block.text)}</p>'
  if isinstance(block, Grid):
    return _table(block)
  if isinstance(block, Figure):
    caption = f"<b>{html.escape(block.title)}</b> {html.escape(block.caption)}"
    return f"<figure><figcaption>{caption}</figcaption>{block.svg}</figure>"
  lines = html.escape("\n".join(block.lines))
  return f"<details><summary>{_marked(block.title)}</summary><pre><code>{lines}</code></pre></details>"


def _table(grid: Grid) -> str:
  def kind(column: int) -> str:
    return "" if column < grid.texts else ' class="number"'

  head = "".join(f'<th scope="col"{kind(n)}>{_marked(cell)}</th>' for n, cell in enumerate(grid.head))
  body = []
  for row in grid.rows:
    short = len(row) < len(grid.head)
    cells = [f"<td{kind(n)}>{_marked(cell)}</td>" for n, cell in enumerate(row)]
    if short:
      cells[-1] = f'<td colspan="{len(grid.head) - len(row) + 1}">{_marked(row[-1])}</td>'
    missing = ' class="missing"' if short else ""
    body.append(f"<tr{missing}>{''.join(cells)}</tr>")
  table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
  return f'<div class="scroll" tabindex="0">{table}</div>'


def _marked(text: str) -> str:
  strong = re.sub(r"\*\*([^*]*)\*\*", r"<b>\1</b>", html.escape(text))
  return re.sub(r"`([^`]*)`", r"<code>\1</code>", strong)
