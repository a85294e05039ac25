"""A page as a small tree of content, written as `report.html`, which needs nothing else, and as `report.md`.

Every page of the lab (comparisons, benchmarks, training runs) is a `Page` of sections, and is laid out by the same two
templates. In all texts `backticks` mark code and **stars** emphasis; everything else is escaped.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from attention_lab.results import figure_files

if TYPE_CHECKING:
  import jinja2
  from markupsafe import Markup
  from matplotlib.figure import Figure

YES, NO = "✓", "–"
HTML, MARKDOWN = "report.html", "report.md"


@dataclasses.dataclass(frozen=True)
class Prose:
  """Paragraphs; `kind` is their class in the style sheet: lead, hint, caption, caution, notes."""

  shape: ClassVar[str] = "prose"
  texts: Sequence[str]
  kind: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
  """A table of cells, `texts` columns at the left being words and the others numbers.

  A row that is shorter than the head gives its last cell the columns that are left. `marks` gives the rows whose first
  cell is such a name the colour and marker that the name has in the figures; `shades` are classes of rows, by index.
  """

  shape: ClassVar[str] = "table"
  head: Sequence[str]
  rows: Sequence[Sequence[str]]
  texts: int = 1
  kind: str = ""
  marks: Mapping[str, int] = dataclasses.field(default_factory=dict)
  shades: Mapping[int, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Picture:
  """A figure with its title and caption; `alt` says what it shows, `file` names it on disk, without an ending."""

  shape: ClassVar[str] = "picture"
  title: str
  caption: str
  alt: str
  file: str
  figure: "Figure"
  texts: Sequence[str] = ()

  @property
  def wide(self) -> bool:
    """Whether it takes the whole width of a page."""
    return bool(self.figure.get_figwidth() > 7)

  @functools.cached_property
  def drawing(self) -> bytes:
    """The figure as an SVG file."""
    return figure_files.render(self.figure, "svg", self.file)

  @property
  def svg(self) -> str:
    """The figure as an element of the page."""
    return figure_files.inline(self.drawing.decode(), self.alt)


@dataclasses.dataclass(frozen=True)
class Listing:
  """Lines to be copied whole, each with what it is of: (what, line); folded away under its title."""

  shape: ClassVar[str] = "listing"
  title: str
  lines: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Names and values."""

  shape: ClassVar[str] = "pairs"
  pairs: Sequence[tuple[str, str]]


@dataclasses.dataclass(frozen=True)
class Fold:
  """Blocks that are folded away under a title."""

  shape: ClassVar[str] = "fold"
  title: str
  blocks: Sequence["Block"]


@dataclasses.dataclass(frozen=True)
class Section:
  """A heading and what stands under it; `kind` is its class in the style sheet, `link` what its heading leads to."""

  shape: ClassVar[str] = "section"
  title: str
  blocks: Sequence["Block"]
  kind: str = ""
  link: str = ""

  @property
  def anchor(self) -> str:
    """The section's id within the page."""
    return identifier(self.title)


Block = Prose | Table | Picture | Listing | Pairs | Fold | Section


@dataclasses.dataclass(frozen=True)
class Page:
  """A title, a line that says what was run where, and the content."""

  title: str
  lead: str
  blocks: Sequence[Block]


def write(page: Page, folder: str | os.PathLike[str], formats: Sequence[str] = ("svg",)) -> list[pathlib.Path]:
  """Writes `report.md`, `report.html` and a file for each figure and format into a folder; returns their paths.

  Args:
    page: the content.
    folder: where to write; pictures go to FOLDER/FILE.FORMAT.
    formats: of `figure_files.FORMATS`; the first is the one that report.md shows; none leaves it without pictures.

  """
  target, written = pathlib.Path(folder), []
  for name in (MARKDOWN, HTML):
    text = (
      environment()
      .get_template(f"{name.replace('report', 'page')}.j2")
      .render(page=page, formats=formats, style=_style())
    )
    text = _shared_styles(text) if name == HTML else text
    partial = target / f".{name}.{os.getpid()}"
    partial.write_text(re.sub(r"\n{3,}", "\n\n", text).strip() + "\n", encoding="utf-8")
    written.append(partial.replace(target / name))
  for picture in pictures(page.blocks):
    for kind in formats:
      path = target / f"{picture.file}.{kind}"
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(picture.drawing if kind == "svg" else figure_files.render(picture.figure, kind))
      written.append(path)
  return written


def pictures(blocks: Sequence[Block]) -> list[Picture]:
  """The pictures among blocks and in their sections and folds."""
  inner = [pictures(block.blocks) if isinstance(block, Section | Fold) else [] for block in blocks]
  return [
    picture
    for block, below in zip(blocks, inner, strict=True)
    for picture in ([block] if isinstance(block, Picture) else below)
  ]


def identifier(text: str) -> str:
  """An id within a page, and a name of a file."""
  return re.sub(r"[^A-Za-z0-9_]+", "-", text).strip("-")


@functools.cache
def environment() -> "jinja2.Environment":
  """The templates with their filters; those of HTML escape what is put into them."""
  import jinja2

  loader = jinja2.PackageLoader("attention_lab.results")
  made = jinja2.Environment(
    loader=loader,
    autoescape=lambda name: bool(name) and ".html" in str(name),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
  )
  made.filters |= {"marked": marked, "cell": _markdown_cell, "strip_code": lambda text: text.strip("`")}
  made.globals |= {
    "glyph": lambda number: figure_files.symbol(number, figure_files.GLYPHS),
    "spoken": {YES: "yes", NO: "no"},
  }
  made.globals |= {"colours": len(figure_files.COLOURS)}
  return made


def marked(text: str) -> "Markup":
  """Escaped text with its code and emphasis; line breaks are kept, and what belongs together is not broken."""
  from markupsafe import Markup, escape

  safe = str(escape(text)).replace("Holm p", "Holm\N{NO-BREAK SPACE}p").replace("\n", "<br>")
  safe = re.sub(r" (=|±|&lt;) ", "\N{NO-BREAK SPACE}\\1\N{NO-BREAK SPACE}", safe)
  safe = re.sub(r"\*\*([^*]*)\*\*", r"<b>\1</b>", safe)
  return Markup(re.sub(r"`([^`]*)`", _code, safe))


def _code(match: re.Match[str]) -> str:
  """A spec, which may be broken after its signs."""
  breakable = re.sub(r"([|+@,])", r"\1<wbr>", match[1])
  return f"<code>{breakable}</code>"


def _shared_styles(text: str) -> str:
  """The page with one rule for all elements of figures that look the same, and short identifiers in figures."""
  rules: dict[str, str] = {}
  ids: dict[str, str] = {}

  def name(match: re.Match[str]) -> str:
    return f' class="{rules.setdefault(match[1], f"f{len(rules)}")}"'

  def short(match: re.Match[str]) -> str:
    return f"{match[1]}{ids.setdefault(match[2], f'i{len(ids)}')}{match[3]}"

  def figure(match: re.Match[str]) -> str:
    named = re.sub(r'( id="|url\(#|href="#)([^")]+)(["\)])', short, match[0])
    return re.sub(r' style="([^"]*)"', name, named)

  text = re.sub(r"<svg.*?</svg>", figure, text, flags=re.DOTALL)
  sheet = "".join(f".{rule}{{{style}}}" for style, rule in rules.items())
  return text.replace("</style>", f"{sheet}</style>", 1)


def _markdown_cell(text: str) -> str:
  return text.replace("|", "\\|").replace("-\n", "-").replace("\n", " ")


def _style() -> Any:
  from markupsafe import Markup

  return Markup((pathlib.Path(__file__).parent / "templates" / "page.css").read_text(encoding="utf-8"))
