"""A page says the same in HTML, which needs nothing else and escapes everything, and in Markdown."""

import html.parser
import re

import pytest

from attention_lab.results import figures, pages
from attention_lab.results.figure_labels import Line
from attention_lab.results.figures import Axis
from attention_lab.results.pages import NO, YES, Fold, Listing, Page, Pairs, Picture, Prose, Section, Table

VOID = {"meta", "br", "wbr"}


class Elements(html.parser.HTMLParser):
  """The text of a page, element by element; every element must be closed in order."""

  def __init__(self, content):
    super().__init__()
    self.open, self.text = [], []
    self.feed(content)
    assert not self.open

  def handle_starttag(self, tag, _):
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, _):
    assert tag not in VOID

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if "style" not in self.open:
      self.text.append(data)


@pytest.fixture
def picture():
  drawn = figures.plot([Line("a", [(0.0, 1.0, 1.0, 1.0), (1.0, 2.0, 2.0, 2.0)], 0)], Axis("x"), Axis("y"))
  return Picture("Curve", "As it rose.", "y against x", "figures/curve", drawn)


@pytest.fixture
def page(picture):
  table = Table(["row", "standing", "score\nmean"], [["`a|b`", "tied best", "0.5"], ["`c`", "refused: no cause"]], 2)
  claims = Table(["variant", "causal"], [["`softmax`", YES], ["`pooling`", NO]], marks={"softmax": 0, "pooling": 8})
  blocks = [
    Prose(["A *note* with `code`."], "notes"),
    Section("Results", [picture, table, Fold("More", [Prose(["Deep inside."])]), Pairs([("seeds", "0, 1")])]),
    Section("Claims", [claims, Listing("Commands", [("a, seed 0", "python -m a | cat")])]),
  ]
  return Page("A title", "where it ran", blocks)


def written(page, folder, formats=("svg",)):
  paths = pages.write(page, folder, formats)
  return paths, *((folder / name).read_text(encoding="utf-8") for name in ("report.md", "report.html"))


def test_both_pages_say_all(page, tmp_path):
  paths, markdown, content = written(page, tmp_path)
  assert [path.name for path in paths] == ["report.md", "report.html", "curve.svg"]
  text = " ".join(Elements(content).text)
  for part in (
    "A title",
    "where it ran",
    "Results",
    "tied best",
    "no cause",
    "Deep inside.",
    "0, 1",
    "python -m a | cat",
  ):
    assert part in text
    assert part in markdown
  assert "![Curve: y against x](figures/curve.svg)" in markdown
  assert "## Results" in markdown


def test_what_a_row_is_called_cannot_break_out_of_the_page(picture, tmp_path):
  bad = "<script>alert(1)</script>\"'&"
  table = Table([bad, "standing", "number"], [[bad, bad, bad], [f"`{bad}`", bad]], marks={bad: 1})
  blocks = [Section(bad, [Prose([bad]), table, Fold(bad, []), Listing(bad, [(bad, bad)]), Pairs([(bad, bad)])])]
  _, _, content = written(Page(bad, bad, [*blocks, Prose([bad], "notes")]), tmp_path)
  assert "<script" not in content
  Elements(content)


def test_the_page_needs_nothing_else_and_its_links_lead_somewhere(page, tmp_path):
  _, _, content = written(page, tmp_path)
  assert not re.search(r"https?:|@import|src=|<script|<link|url\((?!#)", content)
  ids = re.findall(r' id="([^"]+)"', content)
  assert len(set(ids)) == len(ids)
  assert set(re.findall(r'(?:href="|url\()#([^")]+)', content)) <= set(ids)
  assert "prefers-color-scheme: dark" in content


def test_pictures_have_words_for_those_who_do_not_see_them(page, tmp_path):
  _, _, content = written(page, tmp_path)
  assert content.count("<svg") == content.count('role="img" aria-label="y against x"') == 1


def test_marks_are_read_aloud_and_differ_in_more_than_colour(page, tmp_path):
  _, _, content = written(page, tmp_path)
  assert '<span aria-hidden="true">✓</span><span class="aloud">yes</span>' in content
  assert '<span aria-hidden="true">–</span><span class="aloud">no</span>' in content
  assert 'style="color:var(--s0)" aria-hidden="true">●' in content
  assert 'style="color:var(--s1)" aria-hidden="true">▲' in content


def test_markdown_tables_are_rectangular_also_with_a_bar_in_a_cell(page, tmp_path):
  _, markdown, _ = written(page, tmp_path)
  blocks = [block for block in markdown.split("\n\n") if block.startswith("|")]
  assert len(blocks) == 3
  for block in blocks:
    assert len({len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1


def test_the_same_page_gives_the_same_bytes_and_leaves_no_parts(page, tmp_path):
  first = written(page, tmp_path)
  assert written(page, tmp_path) == first
  assert {path.name for path in tmp_path.iterdir()} == {"report.md", "report.html", "figures"}


def test_every_format_is_written_and_the_first_is_shown(page, tmp_path):
  paths, markdown, _ = written(page, tmp_path, ("png", "pdf", "svg"))
  assert [path.name for path in paths[2:]] == ["curve.png", "curve.pdf", "curve.svg"]
  assert "(figures/curve.png)" in markdown
  _, bare, _ = written(page, tmp_path, ())
  assert "![" not in bare
