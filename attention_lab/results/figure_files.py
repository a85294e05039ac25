"""The look of all figures and the files they become: SVG, PNG, PDF, and an element of a page.

Figures are drawn in the light palette. Within a page every colour of it becomes a variable of the style sheet, so that
the page's dark mode holds for its figures. The same content gives the same bytes. Matplotlib is imported on first use.
"""

import contextlib
import html
import io
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from matplotlib.figure import Figure

FORMATS = ("svg", "png", "pdf")
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b5508f", "#c98a00", "#3f9fd8", "#4a4f55")  # for colour-blind readers too
MARKERS = "os^DvXP"
GLYPHS = "●■▲◆▼✖✚"  # the markers, as letters of a page
PAPER, INK, SOFT, FAINT, AXIS, GHOST, REFERENCE = (
  "#ffffff", "#1c2024", "#5c6570", "#e4e7ea", "#9aa2ab", "#d3d8dd", "#7a5c00",
)  # fmt: skip
VARIABLES = {"paper": PAPER, "ink": INK, "soft": SOFT, "faint": FAINT, "axis": AXIS, "ghost": GHOST}
VARIABLES |= {"reference": REFERENCE} | {f"s{number}": colour for number, colour in enumerate(COLOURS)}
_STYLE = {
  "font.family": "DejaVu Sans",
  "font.size": 9,
  "axes.spines.top": False,
  "axes.spines.right": False,
  "axes.edgecolor": AXIS,
  "axes.labelcolor": SOFT,
  "axes.titlesize": 9.5,
  "axes.titlecolor": INK,
  "axes.grid": True,
  "axes.grid.axis": "y",
  "axes.axisbelow": True,
  "axes.unicode_minus": True,
  "axes.formatter.useoffset": False,
  "grid.color": FAINT,
  "grid.linewidth": 0.8,
  "xtick.color": AXIS,
  "ytick.color": AXIS,
  "xtick.labelcolor": SOFT,
  "ytick.labelcolor": SOFT,
  "text.color": INK,
  "figure.facecolor": PAPER,
  "axes.facecolor": PAPER,
  "lines.solid_capstyle": "butt",
  "svg.fonttype": "none",
  "pdf.fonttype": 42,
}


def colour(number: int) -> str:
  """The colour of series `number`."""
  return COLOURS[number % len(COLOURS)]


def symbol(number: int, markers: str = MARKERS) -> str:
  """The marker of series `number`; 49 series differ in colour or marker."""
  return markers[(number + number // len(COLOURS)) % len(markers)]


@contextlib.contextmanager
def styled(more: Mapping[str, Any] = {}) -> Iterator[None]:
  """Draws within it have the look of the figures; `more` adds settings of matplotlib."""
  import matplotlib

  style: Any = {**matplotlib.rcParamsDefault, "backend": "agg", **_STYLE, **more}
  with matplotlib.rc_context(style):
    yield


def new(width: float, height: float) -> "Figure":
  """An empty figure of this size in inches, apart from all state of pyplot."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure

  figure = Figure(figsize=(width, height), layout="constrained")
  FigureCanvasAgg(figure)
  return figure


def render(figure: "Figure", kind: str, salt: str = "") -> bytes:
  """The figure as a file of a format; `salt` keeps the identifiers of two figures apart."""
  dates = {
    "svg": ("Date", "Creator", "Format", "Type"),
    "png": ("Software",),
    "pdf": ("CreationDate", "Creator", "Producer"),
  }
  buffer = io.BytesIO()
  with styled({"svg.hashsalt": salt or "figure"}):
    figure.savefig(buffer, format=kind, dpi=200, metadata=dict.fromkeys(dates[kind]))
  return _compact(buffer.getvalue().decode()).encode() if kind == "svg" else buffer.getvalue()


def inline(text: str, alt: str) -> str:
  """The text of an SVG file as an element of a page, in the page's colours; `alt` is read aloud in its place."""
  box = re.search(r'viewBox="([^"]*)"', text)
  head = f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{html.escape(alt)}">'
  text = head + text[text.index("</style></defs>") + len("</style></defs>") :].replace("xlink:href", "href")
  names = {value: f"var(--{name})" for name, value in VARIABLES.items()}
  return re.sub(r"#[0-9a-f]{6}\b", lambda match: names.get(match[0], match[0]), text)


def _compact(text: str) -> str:
  """An SVG without comments, unused identifiers, needless digits, and with its font named once."""
  used = set(re.findall(r'(?:url\(#|href="#)([^")]+)', text))
  text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
  text = re.sub(r' id="([^"]+)"', lambda match: match[0] if match[1] in used else "", text)
  text = re.sub(r" font-family: [^;\"]*;| transform=\"rotate\(-0 [^\"]*\"", "", text)
  text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"-?\d+\.\d{2,}", _two_digits, tag[0]), text)
  text = text.replace("</style>", "text{font-family: 'DejaVu Sans', Verdana, Arial, sans-serif}</style>")
  text = re.sub(r"\s*\n\s*", " ", text).replace("> <", "><").strip() + "\n"
  text = re.sub(r' d="[^"]*"', lambda path: re.sub(r" ?([MLCQz]) ?", r"\1", path[0]), text)
  groups: list[bool] = []  # of the open groups, whether they say anything
  return re.sub(r"</?g\b[^>]*>", lambda tag: _group(tag[0], groups), text)


def _group(tag: str, groups: list[bool]) -> str:
  """The start or the end of a group; nothing for a group without attributes."""
  if tag.endswith("/>"):
    return ""
  if tag.startswith("</"):
    return tag if groups.pop() else ""
  groups.append(tag != "<g>")
  return tag if groups[-1] else ""


def _two_digits(number: re.Match[str]) -> str:
  value = float(number[0])
  return f"{value:.{1 if abs(value) >= 10 else 2}f}".rstrip("0").rstrip(".")
