"""Figures say what they were given, in text that does not overlap, and always in the same bytes."""

import itertools
import re
import subprocess
import sys

import numpy as np
import pytest

from attention_lab.results import figure_files, figure_labels, figures
from attention_lab.results.figure_labels import Line
from attention_lab.results.figures import Axis, Rank


def texts_of(figure):
  """The texts of a figure that show something."""
  from matplotlib.text import Text

  texts = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
  return [text for text in texts if text.figure is not None]


def overlaps(figure):
  """Pairs of texts of which one lies over the other, as the Agg renderer measures them."""
  from matplotlib.text import Text

  figure.canvas.draw()
  renderer = figure.canvas.get_renderer()
  boxes = [(text.get_text(), Text.get_window_extent(text, renderer)) for text in _shown(figure)]
  return [(a, b) for (a, box), (b, other) in itertools.combinations(boxes, 2) if box.padded(-0.5).overlaps(other)]


def _shown(figure):
  for axes in figure.axes:
    if axes.get_visible():
      labels = [label for axis in (axes.xaxis, axes.yaxis) for label in axis.get_majorticklabels()]
      limits = {"x": sorted(axes.get_xlim()), "y": sorted(axes.get_ylim())}
      for which, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        for value, label in zip(axis.get_majorticklocs(), axis.get_majorticklabels(), strict=False):
          if label.get_visible() and label.get_text() and limits[which][0] <= value <= limits[which][1]:
            yield label
      yield from (text for text in axes.texts if text.get_visible() and text not in labels)
      yield from (
        text for text in (axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label) if text.get_text()
      )


def line(name, number, values, xs=(1, 2, 4, 8), **rest):
  points = [(float(x), value - 0.02, value, value + 0.02) for x, value in zip(xs, values, strict=True)]
  return Line(name, points, number, **rest)


@pytest.fixture
def four():
  return [line(f"row {i}", i, [0.1, 0.3, 0.5, 0.5 + 0.001 * i]) for i in range(4)]


def test_names_stand_at_the_ends_of_lines_and_not_on_each_other(four):
  drawn = figures.plot(four, Axis("step"), Axis("score"), references={"chance": 0.1, "oracle": 0.505}, bands=True)
  assert {"row 0", "row 1", "row 2", "row 3", "chance", "oracle", "step", "score"} <= {
    t.get_text() for t in texts_of(drawn)
  }
  assert not overlaps(drawn)


def test_values_are_drawn_where_they_are(four):
  drawn = figures.plot(four, Axis("step"), Axis("score"))
  plotted = [tuple(artist.get_ydata()) for artist in drawn.axes[0].lines]
  for series in four:
    assert tuple(point[2] for point in series.points) in plotted


@pytest.mark.parametrize("seed", range(3))
def test_fourteen_names_of_points_lie_within_the_plot_and_not_on_each_other(seed):
  random = np.random.default_rng(seed)
  middle = random.uniform(0.2, 0.8, 2)
  places = np.clip(middle + random.normal(0, 0.12, (14, 2)), 0, 1)
  points = [
    Line(f"variant(k={i})", [(float(x), float(y), float(y), float(y))], i, [f"variant(k={i})"], joined=False)
    for i, (x, y) in enumerate(places)
  ]
  axis = (-0.05, 1.05)
  drawn = figures.scatter([(Axis("cost", axis), points, [])], Axis("score", axis))
  assert not overlaps(drawn)
  frame = drawn.axes[0].get_window_extent()
  names = [text for text in drawn.axes[0].texts if text.get_text().startswith("variant")]
  assert len(names) == 14
  for name in names:
    box = type(name).__mro__[1].get_window_extent(name, drawn.canvas.get_renderer())
    assert frame.x0 <= box.x0
    assert box.x1 <= frame.x1 + 6


def test_small_plots_hold_a_group_each_with_the_others_behind(four):
  groups = {
    f"family {i}": [line("16", i, [0.1, 0.2, 0.3, 0.4]), line("32", i, [0.2, 0.3, 0.4, 0.41])] for i in range(5)
  }
  drawn = figures.panels(groups, Axis("step"), Axis("score"), bands=True)
  shown = [axes for axes in drawn.axes if axes.get_visible()]
  assert [axes.get_title(loc="left") for axes in shown] == list(groups)
  for axes in shown:
    behind = next(line.get_xdata() for line in axes.lines if line.get_color() == figure_files.GHOST)
    assert np.isnan(behind).sum() == 8
    assert {"16", "32"} <= {text.get_text() for text in axes.texts}
  assert not overlaps(drawn)


def test_a_ranking_names_every_row_and_how_far_it_is_behind():
  ranks = [
    Rank("softmax", 0.9, 0, (0.88, 0.92), (0.89, 0.91), (0.0, 0.0, 0.0), None, "best"),
    Rank("chance", 0.5),
    Rank("linear", 0.4, 1, (0.3, 0.5), (0.35, 0.45), (0.4, 0.5, 0.6), (0.3, 0.7), "behind"),
  ]
  drawn = figures.ranking(ranks, Axis("accuracy"), Axis("behind the best"))
  assert [label.get_text() for label in drawn.axes[0].get_yticklabels()] == ["softmax", "chance", "linear"]
  assert {"best", "behind"} <= {text.get_text() for text in drawn.axes[1].texts}
  assert not overlaps(drawn)


def test_all_tasks_stand_side_by_side_with_the_same_rows():
  ranks = {
    name: Rank(name, value, i, (value - 0.1, value + 0.1)) for i, (name, value) in enumerate([("a", 0.2), ("b", 0.6)])
  }
  drawn = figures.matrix({"a": 0, "b": 1}, [(f"task: number {i}", Axis("score"), ranks) for i in range(9)])
  assert [axes.get_title(loc="left") for axes in drawn.axes if axes.get_visible()] == [
    f"task\nnumber {i}" for i in range(9)
  ]
  assert not overlaps(drawn)


def test_the_same_content_gives_the_same_bytes_in_every_format(four):
  twice = [figures.plot(four, Axis("step"), Axis("score")) for _ in range(2)]
  starts = {"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}
  for kind in figure_files.FORMATS:
    first, second = (figure_files.render(figure, kind, "name") for figure in twice)
    assert first == second
    assert first.startswith(starts[kind])
    assert first == figure_files.render(twice[0], kind, "name")


def test_a_figure_of_a_page_is_text_in_the_pages_colours_without_dangling_names(four):
  text = figure_files.render(figures.plot(four, Axis("step"), Axis("score <b>")), "svg", "name").decode()
  assert "font-family" in text
  inline = figure_files.inline(text, 'score of "row" <script>')
  assert inline.startswith("<svg viewBox=")
  assert 'aria-label="score of &quot;row&quot; &lt;script&gt;"' in inline
  assert ">row 0</text>" in inline
  assert "score &lt;b&gt;" in inline
  assert not re.search(r"https?:|xlink|<style|font-family|#[0-9a-f]{6}\b", inline)
  assert "var(--s0)" in inline
  assert "var(--ink)" in figure_files.inline(
    f'<svg viewBox="0 0 1 1"></style></defs><path fill: {figure_files.INK}/>', ""
  )
  assert inline.count("<g") - inline.count("<g/>") == inline.count("</g>")
  assert "<g>" not in inline
  ids = re.findall(r' id="([^"]+)"', inline)
  assert len(set(ids)) == len(ids)
  assert set(re.findall(r'(?:href="|url\()#([^")]+)', inline)) <= set(ids)


def test_numbers_in_texts_keep_their_digits(four):
  ticks = (0.1, 0.12345, 0.5)
  text = figure_files.render(
    figures.plot(four, Axis("step"), Axis("s", (0.0, 1.0), False, ticks, "{:.5f}".format)), "svg"
  ).decode()
  assert ">0.12345</text>" in text


def test_matplotlib_is_imported_only_where_something_is_drawn():
  program = (
    "import sys, attention_lab, attention_lab.results.figures, attention_lab.compare.report; "
    "assert not {'matplotlib', 'jinja2'} & sys.modules.keys(), 'imported'"
  )
  subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [3.0, 7.0], [-2.0, -2.0]])
def test_padded_ends_hold_their_values_with_room(values):
  low, high = figures.padded(values)
  assert all(low < value < high for value in values)


def test_padded_logarithmic_ends_hold_equal_values():
  low, high = figures.padded([5.0, 5.0], log=True)
  assert 0 < low < 5 < high


@pytest.mark.parametrize(
  "wanted", [[10.0] * 4, [0.0, 1.0, 99.0, 100.0], [20.0, 21.0, 22.0, 50.0, 51.0], [100.0] * 6, [0.0] * 6]
)
def test_spread_names_keep_their_gap_and_their_order_within_the_plot(wanted):
  placed = figure_labels.spread(wanted, 15.0, 0.0, 100.0)
  assert all(second - first >= 15 - 1e-9 for first, second in itertools.pairwise(placed))
  assert min(placed) >= -1e-9
  assert max(placed) <= 100 + 1e-9


def test_names_with_room_stay_where_they_are():
  assert figure_labels.spread([10.0, 40.0, 80.0], 15.0, 0.0, 100.0) == [10.0, 40.0, 80.0]


def test_long_names_are_cut_in_the_middle():
  assert len(figure_labels.shorten("local(window=64)|linear|softmax|performer")) == figure_labels.NAME
  assert figure_labels.shorten("softmax") == "softmax"


def test_no_two_of_forty_series_share_marker_and_colour():
  assert len({(figure_files.colour(i), figure_files.symbol(i)) for i in range(40)}) == 40
