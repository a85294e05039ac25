import html.parser
import re

import numpy as np
import pytest
from scipy import stats

from attention_lab.compare import report
from attention_lab.compare.report import curves, tables
from attention_lab.compare.schedule import grid
from attention_lab.results import records

VOID = {"meta", "br", "line", "path", "rect", "wbr", "use"}


class _Page(html.parser.HTMLParser):
  """Collects the text of a page and checks that every element is closed in order."""

  def __init__(self, content):
    super().__init__()
    self.open, self.words, self.counts, self.joined = [], [], {}, False
    self.feed(content)
    self.text = " ".join("".join(self.words).split())

  def handle_starttag(self, tag, _):
    self.counts[tag] = self.counts.get(tag, 0) + 1
    self.joined = tag == "wbr"
    if tag not in VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, _):
    self.counts[tag] = self.counts.get(tag, 0) + 1

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    if self.open and self.open[-1] != "style":
      self.words.append(data if self.joined else f" {data}")
    self.joined = False


def _written(folder):
  paths = report.write(folder)
  assert [path.name for path in paths] == ["report.md", "report.html"]
  markdown, page = (path.read_text(encoding="utf-8") for path in paths)
  parsed = _Page(page)
  assert not parsed.open
  return markdown, page, parsed


def test_report_holds_every_variant_task_command_and_digest(workdir, fake):
  markdown, _, parsed = _written(workdir)
  for row in records.read(workdir / "results.jsonl").rows:
    assert row["command"] in markdown
    assert row["command"] in parsed.text
  for spec in fake.specs:
    assert f"`{spec}`" in markdown
    assert spec in parsed.text
  assert "8d1f0c77aa12be90" in markdown
  assert "8d1f0c77aa12be90" in parsed.text
  assert "0.771 [0.727, 0.814]" in markdown
  assert "0.771 [0.727, 0.814]" in parsed.text


def test_page_needs_nothing_from_outside(workdir):
  _, page, parsed = _written(workdir)
  assert parsed.counts.keys().isdisjoint({"script", "link", "img", "iframe", "object"})
  assert not re.search(r"https?:|@import|url\((?!#)|src=", page)


def test_page_draws_curves_differences_and_a_front_for_each_of_four_costs(workdir, fake):
  _, page, parsed = _written(workdir)
  assert parsed.counts["figure"] == 6 * len(fake.settings)
  assert page.count('class="stairs"') == 4 * len(fake.settings)


def test_every_id_is_alone_and_every_reference_within_the_page_leads_to_one(tmp_path, fake):
  for row in fake.make_rows():
    for copy in range(3):
      records.append(tmp_path / "results.jsonl", row | {"attention": f"{row['attention']}@heads={2**copy}"})
  _, page, _ = _written(tmp_path)
  ids = re.findall(r' id="([^"]+)"', page)
  assert len(set(ids)) == len(ids)
  assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)
  assert page.count('<div class="panels">') == len(fake.settings)


def test_bands_of_learning_curves_are_95_percent_intervals_over_seeds(rows):
  table = tables.build([row for row in rows if row["task"] == "language_modeling"])[0]
  entry = table.scored[0]
  step, low, mean, high = curves.curve(entry)[7]
  values = [dict(row["curve"])[step] for row in entry.done]
  expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  np.testing.assert_allclose((low, mean, high), (expected[0], np.mean(values), expected[1]))


def test_curves_of_many_rows_stand_apart_and_of_few_together(rows):
  (few,) = tables.build([row for row in rows if row["task"] == "recall"])
  numbers = {entry.attention: i for i, entry in enumerate(few.entries)}
  together = curves.figure(few, numbers)
  assert (together.wide, together.picture.count("<svg")) == (False, 1)
  more = [row | {"attention": f"{row['attention']}@heads={n}"} for row in rows for n in (1, 2)]
  (many,) = tables.build([row for row in more if row["task"] == "recall"])
  apart = curves.figure(many, {entry.attention: i for i, entry in enumerate(many.entries)})
  assert (apart.wide, apart.picture.count("<svg")) == (True, 8)
  assert apart.caption.endswith("Grey: the other rows. Dotted, from below: chance.")


def test_verdict_comes_before_the_tables_and_protocol_after_the_pictures(workdir):
  markdown, page, _ = _written(workdir)
  headings = [line for line in markdown.splitlines() if line.startswith("## ")]
  assert headings[:3] == ["## Verdicts", "## All tasks", "## recall"]
  places = [page.index(mark) for mark in ('class="verdicts"', 'id="overview"', "<figure", '"protocol"')]
  assert places == sorted(places)
  assert page.index('id="capabilities"') > page.rindex('"protocol"')


def test_ties_are_marked_by_words_and_not_by_weight(workdir):
  markdown, page, _ = _written(workdir)
  assert markdown.count("| tied best |") == page.count('<span class="standing tied">tied best</span>') == 8
  assert "**" not in markdown


def test_markdown_tables_are_rectangular_also_with_a_bar_in_a_spec(tmp_path, fake):
  for row in fake.make_rows():
    records.append(tmp_path / "results.jsonl", row | {"attention": f"{row['attention']}|softmax"})
  markdown, _, _ = _written(tmp_path)
  for block in markdown.split("\n\n"):
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines() if block.startswith("|")}
    assert len(widths) <= 1


def test_same_ledger_gives_the_same_report(workdir):
  first = _written(workdir)[:2]
  assert _written(workdir)[:2] == first
  assert not [path for path in workdir.iterdir() if path.name.startswith(".")]


def test_unfinished_comparison_has_a_report_that_says_so(tmp_path, fake):
  grid.register(tmp_path, grid.plan(fake.settings, fake.specs, fake.seeds))
  for row in fake.make_rows()[:4]:
    records.append(tmp_path / "results.jsonl", row)
  markdown, _, parsed = _written(tmp_path)
  assert "Unfinished: 41 of 45 runs" in markdown
  assert "Unfinished: 41 of 45 runs" in parsed.text


def test_damaged_and_repeated_rows_are_noted_and_change_no_number(workdir):
  before, _, _ = _written(workdir)
  path = workdir / "results.jsonl"
  first = path.read_text().splitlines(keepends=True)[0]
  path.write_text(path.read_text() + first + first[:40])
  markdown, _, _ = _written(workdir)
  assert "line 47 is incomplete" in markdown
  assert "1 repeated row;" in markdown
  assert markdown.partition("## recall")[2] == before.partition("## recall")[2]


def test_rows_of_two_commits_stand_in_two_tables_with_a_note(workdir, fake):
  for row in fake.make_rows(seeds=(3, 4), commit="0000000ffff"):
    records.append(workdir / "results.jsonl", row)
  markdown, _, parsed = _written(workdir)
  assert markdown.count("\n## recall (commit") == 2
  assert "recall: rows of different commits, data or configurations are kept apart in 2 tables" in parsed.text


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_report_of_few_seeds_is_written(tmp_path, seeds, fake):
  markdown, _, parsed = _written(fake.write_workdir(tmp_path, seeds))
  assert ("(1 seed)" in markdown) == (len(seeds) == 1)
  assert parsed.counts["table"] >= 3


def test_hostile_spec_is_escaped(tmp_path, fake):
  for row in fake.make_rows()[:6]:
    fields = {"attention": row["attention"] + "<script>", "command": "run '<script>'", "reason": "<script>"}
    records.append(tmp_path / "results.jsonl", row | fields)
  _, page, _ = _written(tmp_path)
  assert "<script" not in page


def test_report_without_costs_and_curves_is_written(tmp_path, fake):
  bare = dict.fromkeys(("step_time", "peak_bytes", "flops_per_token", "parameters", "curve", "chance", "controls"))
  for row in fake.make_rows():
    records.append(tmp_path / "results.jsonl", row | (bare if row["status"] == "done" else {}))
  _, _, parsed = _written(tmp_path)
  assert parsed.counts["figure"] == len(fake.settings)


def test_workdir_without_results_is_refused_in_one_line(tmp_path):
  with pytest.raises(ValueError, match="holds no row: run a comparison") as told:
    report.write(tmp_path)
  assert "\n" not in str(told.value)
