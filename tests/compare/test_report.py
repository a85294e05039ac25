import html.parser
import re

import numpy as np
import pytest
from scipy import stats

from attention_lab.compare import report
from attention_lab.compare.report import pictures, tables, verdict
from attention_lab.compare.schedule import grid
from attention_lab.results import records

VOID = {"meta", "br", "wbr"}


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
  assert [path.name for path in paths[:2]] == ["report.md", "report.html"]
  assert {path.suffix for path in paths[2:]} <= {".svg"}
  markdown, page = (path.read_text(encoding="utf-8") for path in paths[:2])
  parsed = _Page(page)
  assert not parsed.open
  return markdown, page, parsed


@pytest.fixture(scope="module")
def finished(tmp_path_factory, fake):
  """The folder of a comparison with its report, and the report as `_written` gives it."""
  folder = fake.write_workdir(tmp_path_factory.mktemp("finished"))
  return folder, _written(folder)


def _of_one_task(rows):
  """The rows of the first task: enough where a page is written again for one thing that it says."""
  return [row for row in rows if row["task"] == "recall"]


def test_report_holds_every_variant_task_command_and_digest(finished, fake):
  workdir, (markdown, _, parsed) = finished
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


def test_page_needs_nothing_from_outside(finished):
  _, (_, page, parsed) = finished
  assert parsed.counts.keys().isdisjoint({"script", "link", "img", "iframe", "object"})
  assert not re.search(r"https?:|@import|url\((?!#)|src=", page)


def test_page_draws_standings_curves_and_fronts_of_every_task_and_all_at_a_glance(finished, fake):
  workdir, (markdown, page, parsed) = finished
  assert parsed.counts["figure"] == parsed.counts["svg"] == 3 * len(fake.settings) + 1
  files = re.findall(r"!\[[^\]]*\]\((figures/[^)]*)\)", markdown)
  assert sorted(files) == sorted(f"figures/{path.name}" for path in (workdir / "figures").iterdir())
  for name in ("Standings", "Learning", "Quality against cost"):
    assert page.count(f"<b>{name}</b>") == len(fake.settings)
  assert "against decoding" not in page


def test_one_screen_stands_before_the_first_figure(finished):
  """Sentences only: a title, a line, a sentence for each task; all else is folded."""
  _, (_, page, _) = finished
  start = re.sub(r"<details>.*?</details>", "", page[page.index("<main>") : page.index("<figure")], flags=re.DOTALL)
  assert len(re.sub(r"<[^>]*>", "", start).split()) < 200
  assert "<table" not in start


def test_every_id_is_alone_and_every_reference_within_the_page_leads_to_one(tmp_path, fake):
  for row in _of_one_task(fake.make_rows()):
    for copy in range(3):
      records.append(tmp_path / "results.jsonl", row | {"attention": f"{row['attention']}@heads={2**copy}"})
  _, page, _ = _written(tmp_path)
  ids = re.findall(r' id="([^"]+)"', page)
  assert len(set(ids)) == len(ids)
  assert set(re.findall(r'(?:href="|url\()#([^")]+)', page)) <= set(ids)


def test_bands_of_learning_curves_are_95_percent_intervals_over_seeds(rows):
  table = tables.build([row for row in rows if row["task"] == "language_modeling"])[0]
  entry = table.scored[0]
  step, low, mean, high = pictures.curve(entry)[7]
  values = [dict(row["curve"])[step] for row in entry.done]
  expected = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
  np.testing.assert_allclose((low, mean, high), (expected[0], np.mean(values), expected[1]))


def test_curves_of_many_rows_stand_apart_and_of_few_together(rows):
  (few,) = tables.build([row for row in rows if row["task"] == "recall"])
  numbers = {entry.attention: i for i, entry in enumerate(few.entries)}
  together = pictures.learning(few, numbers)
  assert (together.wide, len(together.figure.axes)) == (False, 1)
  more = [row | {"attention": f"{row['attention']}@heads={n}"} for row in rows for n in (1, 2)]
  (many,) = tables.build([row for row in more if row["task"] == "recall"])
  apart = pictures.learning(many, {entry.attention: i for i, entry in enumerate(many.entries)})
  shown = [axes for axes in apart.figure.axes if axes.get_visible()]
  assert apart.wide
  assert sorted(axes.get_title(loc="left") for axes in shown) == [
    "linear@heads=…", "local(window=16)@heads=…", "pooling@heads=…", "softmax@heads=…"
  ]  # fmt: skip
  assert apart.caption.endswith("Grey: the other rows. Dotted, from below: chance.")


def test_standings_show_every_row_its_interval_and_its_distance(rows):
  (table,) = tables.build([row for row in rows if row["task"] == "language_modeling"])
  numbers = {entry.attention: i for i, entry in enumerate(table.entries)}
  scores, gaps = pictures.standings(table, numbers).figure.axes
  ranked = [entry.attention for entry in table.scored]
  names = [label.get_text() for label in scores.get_yticklabels()]
  assert [name for name in names if name in ranked] == ranked
  assert "5-gram" in names
  means = [line.get_xdata()[0] for line in scores.lines if len(line.get_xdata()) == 1]
  assert set(means) >= {entry.interval.mean for entry in table.scored}
  written = [text.get_text() for text in gaps.texts]
  assert written == [verdict.standing(entry, table) for entry in table.scored]


def test_the_sentence_of_plain_english_says_ties_and_distances(rows):
  tables_ = {table.task: verdict.plain(table) for table in tables.build(rows)}
  assert tables_["recall"].startswith(
    "`softmax` and `linear` are tied for best; `local(window=16)` is behind by 77 points (95 % interval 73 to 81) and "
  )
  assert "are tied for best" in tables_["image_classification"]
  assert re.search(
    r"is behind by [\d.]+ bits per byte \(95 % interval [\d.]+ to [\d.]+\)", tables_["language_modeling"]
  )


def test_verdict_comes_before_the_tables_and_protocol_after_the_pictures(finished):
  _, (markdown, page, _) = finished
  headings = [line for line in markdown.splitlines() if line.startswith("## ")]
  assert headings[:3] == ["## Verdicts", "## All tasks", "## recall"]
  marks = ('class="verdicts"', 'id="All-tasks"', "<figure", 'id="recall"', ">Protocol<", 'id="What-the-variants-claim"')
  places = [page.index(mark) for mark in marks]
  assert places == sorted(places)


def test_ties_are_marked_by_words_and_not_by_weight(finished):
  _, (markdown, page, _) = finished
  assert markdown.count("| tied best |") == page.count('<span class="standing tied-best">tied best</span>') == 8
  assert "**" not in markdown


def test_markdown_tables_are_rectangular_also_with_a_bar_in_a_spec(tmp_path, fake):
  for row in _of_one_task(fake.make_rows()):
    records.append(tmp_path / "results.jsonl", row | {"attention": f"{row['attention']}|softmax"})
  markdown, _, _ = _written(tmp_path)
  for block in markdown.split("\n\n"):
    widths = {len(re.split(r"(?<!\\)\|", line)) for line in block.splitlines() if block.startswith("|")}
    assert len(widths) <= 1


def test_same_ledger_gives_the_same_report(finished):
  workdir, (markdown, page, _) = finished
  assert _written(workdir)[:2] == (markdown, page)
  assert not [path for path in workdir.iterdir() if path.name.startswith(".")]


def test_unfinished_comparison_has_a_report_that_says_so(tmp_path, fake):
  grid.register(tmp_path, grid.plan(fake.settings, fake.specs, fake.seeds))
  for row in fake.make_rows()[:4]:
    records.append(tmp_path / "results.jsonl", row)
  markdown, _, parsed = _written(tmp_path)
  assert "Unfinished: 41 of 45 runs" in markdown
  assert "Unfinished: 41 of 45 runs" in parsed.text


def test_damaged_and_repeated_rows_are_noted_and_change_no_number(tmp_path, fake):
  for row in _of_one_task(fake.make_rows()):
    records.append(tmp_path / "results.jsonl", row)
  before, _, _ = _written(tmp_path)
  path = tmp_path / "results.jsonl"
  first = path.read_text().splitlines(keepends=True)[0]
  path.write_text(path.read_text() + first + first[:40])
  markdown, _, _ = _written(tmp_path)
  assert "line 17 is incomplete" in markdown
  assert "1 repeated row;" in markdown
  assert markdown.partition("## recall")[2] == before.partition("## recall")[2]


def test_rows_of_two_commits_stand_in_two_tables_with_a_note(tmp_path, fake):
  later = fake.make_rows(seeds=(3, 4), commit="0000000ffff")
  for row in _of_one_task(fake.make_rows() + later):
    records.append(tmp_path / "results.jsonl", row)
  markdown, _, parsed = _written(tmp_path)
  assert markdown.count("\n## recall (commit") == 2
  assert "recall: rows of different commits, data or configurations are kept apart in 2 tables" in parsed.text


@pytest.mark.parametrize("seeds", [(0,), (0, 1)])
def test_report_of_few_seeds_is_written(tmp_path, seeds, fake):
  for row in _of_one_task(fake.make_rows(seeds)):
    records.append(tmp_path / "results.jsonl", row)
  markdown, _, parsed = _written(tmp_path)
  assert ("(1 seed)" in markdown) == (len(seeds) == 1)
  assert parsed.counts["table"] >= 2


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
  assert parsed.counts["figure"] == len(fake.settings) + 1


def test_workdir_without_results_is_refused_in_one_line(tmp_path):
  with pytest.raises(ValueError, match="holds no row: run a comparison") as told:
    report.write(tmp_path)
  assert "\n" not in str(told.value)
