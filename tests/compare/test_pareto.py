import numpy as np
import pytest

from attention_lab.compare.report import families, pareto, pictures


def _rows(points, cost="flops_per_token", noise=0.0):
  """name -> (mean score, cost), three seeds each."""
  offsets = (-noise, 0.0, noise)
  return {name: ([mean + offset for offset in offsets], {cost: value}) for name, (mean, value) in points.items()}


def _names(points):
  return [point.entry.attention for point in points]


def _front(table, name="flops_per_token"):
  return next(front for front in pareto.fronts(table) if front.axis.name == name)


POINTS = {"cheap": (0.3, 10.0), "waste": (0.2, 20.0), "good": (0.8, 30.0), "equal": (0.8, 40.0), "best": (0.9, 90.0)}


def test_front_holds_the_rows_that_none_beats_at_no_more_cost(table_of):
  front = _front(table_of(_rows(POINTS)))
  assert _names(front.best) == ["cheap", "good", "best"]
  corners = np.array([(10, 0.3), (30, 0.3), (30, 0.8), (90, 0.8), (90, 0.9)])
  np.testing.assert_allclose(pareto.stairs(front), corners)


def test_front_turns_over_where_lower_is_better(table_of):
  points = {name: (1 - mean, cost) for name, (mean, cost) in POINTS.items()}
  front = _front(table_of(_rows(points), higher=False))
  assert _names(front.best) == ["cheap", "good", "best"]


@pytest.mark.parametrize("seed", range(4))
def test_front_is_that_of_an_exhaustive_search(seed, table_of):
  random = np.random.default_rng(seed)
  points = {f"v{i}": (float(random.integers(1, 9)) / 10, float(random.integers(1, 9))) for i in range(14)}
  beaten = {
    name
    for name, (mean, cost) in points.items()
    for other, price in points.values()
    if price <= cost and other >= mean and (price < cost or other > mean)
  }
  assert set(_names(_front(table_of(_rows(points))).best)) == points.keys() - beaten


def test_costs_that_a_budget_made_equal_are_no_axis(table_of):
  rows = {"a": ([0.1, 0.2], {"parameters": 1000, "peak_bytes": 10}), "b": ([0.3, 0.5], {"parameters": 1010})}
  assert pareto.fronts(table_of(rows)) == []
  rows["b"][1]["peak_bytes"] = 20
  assert [front.axis.name for front in pareto.fronts(table_of(rows))] == ["peak_bytes"]


def test_rows_without_a_state_are_left_out_of_that_axis_alone(table_of):
  rows = _rows({"a": (0.3, 64.0), "b": (0.5, 4096.0)}, "state_bytes")
  table = table_of(rows | {"c": ([0.9, 0.9, 0.9], {"state_bytes": None})})
  assert _names(_front(table, "state_bytes").points) == ["b", "a"]


def test_a_row_behind_the_front_is_near_it_only_while_the_seeds_do_not_tell(table_of):
  points = {"best": (0.9, 1.0), "close": (0.89, 2.0), "far": (0.3, 3.0)}
  rows = _rows(points)
  rows["best"][0][:] = [0.90, 0.88, 0.92]
  rows["close"][0][:] = [0.88, 0.91, 0.88]
  rows["far"][0][:] = [0.30, 0.29, 0.31]
  table = table_of(rows)
  front = _front(table)
  assert (_names(front.best), _names(front.near)) == (["best"], ["close"])
  sentence = pareto.sentence(front, 2)
  assert "not beaten by any row that costs no more: `best` (1, 0.90)." in sentence
  assert sentence.endswith("Not shown by these seeds to lie behind the front: `close` (2, 0.89).")


def test_one_seed_judges_nothing_beyond_the_means(table_of):
  front = _front(table_of({"a": ([0.9], {"flops_per_token": 1}), "b": ([0.2], {"flops_per_token": 2})}))
  assert not front.judged
  assert pareto.sentence(front, 2).endswith("Too few seeds to say more than that of the means.")


def _markers(axes):
  """Places of filled and of hollow markers."""
  white = "#ffffff"
  points = [line for line in axes.lines if line.get_marker() not in ("None", "", None)]
  places = lambda chosen: sorted(x for line in points for x in line.get_xdata() if (line.get_mfc() == white) == chosen)
  return places(False), places(True)


def _texts(axes):
  return [text.get_text() for text in axes.texts]


def test_state_of_nothing_is_drawn_on_a_linear_axis(table_of):
  table = table_of(_rows({"a": (0.3, 0.0), "b": (0.5, 4096.0)}, "state_bytes"))
  (picture,) = pictures.fronts(table, {"a": 0, "b": 1})
  (axes,) = picture.figure.axes
  assert axes.get_xscale() == "linear"
  assert "(log)" not in axes.get_xlabel()
  stairs = [line for line in axes.lines if len(line.get_xdata()) == 5]
  assert [list(line.get_xdata())[:3] for line in stairs] == [[0.0, 0.0, 4.0]]


def test_dominated_rows_are_hollow_and_the_others_filled(table_of):
  (picture,) = pictures.fronts(table_of(_rows(POINTS)), {name: i for i, name in enumerate(POINTS)})
  (axes,) = picture.figure.axes
  assert _markers(axes) == ([10.0, 30.0, 90.0], [20.0, 40.0])
  assert "(log)" in axes.get_xlabel()
  assert sorted(_texts(axes)) == sorted(POINTS)


def test_rows_of_one_spec_and_several_widths_are_joined(table_of):
  points = {"linear@width=32": (0.3, 1.0), "linear@width=64": (0.5, 2.0), "linear": (0.6, 4.0), "softmax": (0.9, 9.0)}
  (picture,) = pictures.fronts(table_of(_rows(points)), families.numbers(list(points)))
  first, second = picture.figure.axes
  assert [axes.get_title(loc="left") for axes in (first, second)] == ["softmax", "linear"]
  assert [1.0, 2.0, 4.0] in [list(line.get_xdata()) for line in second.lines]
  assert _texts(second) == ["32", "64", "linear"] or sorted(_texts(second)) == ["32", "64", "linear"]


def test_each_family_has_a_small_plot_with_its_numbers_and_the_front(table_of):
  variants = ["linear", "relu", "softmax", "ssd", "taylor"]
  names = [f"{variant}@width={width}" for variant in variants for width in (4, 8, 16)]
  points = {name: (0.3 + 0.01 * rank, 10.0 + rank) for rank, name in enumerate(names)}
  (picture,) = pictures.fronts(table_of(_rows(points)), families.numbers(list(points)))
  shown = [axes for axes in picture.figure.axes if axes.get_visible()]
  assert sorted(axes.get_title(loc="left") for axes in shown) == variants
  for axes in shown:
    assert sorted(_texts(axes), key=int) == ["4", "8", "16"]
    assert max(len(line.get_xdata()) for line in axes.lines) == 2 * len(names) + 1


@pytest.mark.parametrize(
  ("names", "expected"),
  [
    (["softmax", "softmax@width=8"], [["softmax", "softmax@width=8"]]),
    (["local(window=16)", "local(window=4)"], [["local(window=4)", "local(window=16)"]]),
    (["2*local+6*linear", "4*local+4*linear"], []),
    (["linear@width=8", "linear@heads=8"], []),
    (["a(m=1)@width=8", "a(m=2)@width=8", "a(m=2)@width=9"], [["a(m=2)@width=8", "a(m=2)@width=9"]]),
  ],
)
def test_families_are_rows_that_differ_in_one_number(names, expected):
  assert [list(family.numbers) for family in families.find(names)] == expected


def test_families_share_a_number_only_where_colours_run_out():
  few = ["linear@width=8", "linear@width=16", "softmax"]
  assert list(families.numbers(few).values()) == [0, 1, 2]
  many = [*few, *"abcdef"]
  assert list(families.numbers(many).values()) == [0, 0, 1, 2, 3, 4, 5, 6, 7]
