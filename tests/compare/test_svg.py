import itertools

import pytest

from attention_lab.results import svg


@pytest.mark.parametrize(
  ("scale", "ticks"),
  [
    (svg.Scale(0.0, 1.0), [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
    (svg.Scale(0.0, 600.0), [0, 100, 200, 300, 400, 500, 600]),
    (svg.Scale(1e3, 1e6, log=True), [1e3, 1e4, 1e5, 1e6]),
    (svg.Scale(0.4, 30.0, log=True), [1, 3, 10, 30]),
  ],
)
def test_ticks_are_round_numbers_within_the_range(scale, ticks):
  assert scale.ticks() == pytest.approx(ticks)


@pytest.mark.parametrize("values", [[0.5], [0.0, 0.0], [3.0, 7.0], [-2.0, -2.0]])
def test_padded_scale_holds_its_values_with_room(values):
  scale = svg.padded(values)
  assert all(0 < scale(value) < 1 for value in values)


def test_padded_log_scale_holds_equal_values():
  assert 0 < svg.padded([5.0, 5.0], log=True)(5.0) < 1


@pytest.mark.parametrize(
  "wanted", [[10.0] * 4, [0.0, 1.0, 99.0, 100.0], [50.0, 20.0, 21.0, 22.0, 51.0], [100.0] * 6, [0.0] * 6]
)
def test_spread_labels_keep_their_gap_and_their_order_within_the_plot(wanted):
  placed = svg.spread(wanted, 15.0, 0.0, 100.0)
  ordered = [placed[i] for i in sorted(range(len(wanted)), key=lambda i: wanted[i])]
  assert all(second - first >= 15 - 1e-9 for first, second in itertools.pairwise(ordered))
  assert min(placed) >= -1e-9
  assert max(placed) <= 100 + 1e-9


def test_labels_with_room_stay_where_they_are():
  assert svg.spread([80.0, 10.0, 40.0], 15.0, 0.0, 100.0) == [80.0, 10.0, 40.0]


def test_long_names_are_cut_in_the_middle_and_whole_on_hover():
  name = "local(window=64)|linear|softmax"
  assert len(svg.shorten(name)) == svg.LABEL
  drawn = svg.text((0.0, 0.0), name, "name")
  assert f"<title>{name}</title>" in drawn
  assert drawn.count(name) == 1


def test_text_is_escaped():
  assert "<b>" not in svg.text((0.0, 0.0), "<b>", "name")
  assert "&lt;b&gt;" in svg.text((0.0, 0.0), "<b>", "name")


def test_no_two_of_forty_variants_share_mark_and_colour():
  assert len({svg.marker((0.0, 0.0), index) for index in range(40)}) == 40


def test_given_marks_are_the_ticks():
  assert svg.Marked(1.0, 100.0, True, (7.0, 31.0)).ticks() == [7.0, 31.0]


def test_wide_letters_take_more_room_than_narrow_ones():
  assert svg.extent("mmm") > svg.extent("aaa") > svg.extent("iii") > 0
  assert svg.extent("softmax", 24.0) == 2 * svg.extent("softmax", 12.0)
