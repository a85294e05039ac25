"""The wall chart shows each variant's own map, in its family, in colours that tell signs apart."""

import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.workflows import zoo


def panel(row):
  return zoo.panel(spec.parse(row))


def test_a_panel_shows_what_the_variant_attends_to():
  local = panel("local(window=3)").weights
  places = np.arange(zoo.TOKENS)
  assert np.all((np.abs(local) > 0) == (np.abs(places[:, None] - places[None]) < 3))
  np.testing.assert_allclose(local.sum(axis=-1), 1.0, atol=1e-5)


@pytest.mark.parametrize(
  ("row", "family", "note"),
  [
    ("softmax", 0, "weights"),
    ("sigmoid", 1, "weights"),
    ("identity", 2, "weights"),
    ("linear", 3, "weights"),
    ("differential", 1, "sensitivity"),
    ("fourier", 3, "sensitivity"),
  ],
)
def test_families_and_kinds_of_map_follow_the_claims(row, family, note):
  single = panel(row)
  assert (single.family, single.note) == (family, note)


def test_the_chart_holds_every_panel_by_its_name():
  panels = [panel(row) for row in ("softmax", "identity", "local(window=3)")]
  figure = zoo.draw(panels)
  axes = [each for band in figure.subfigs for each in band.axes if each.images]
  assert [each.get_title(loc="left").partition("\n")[0] for each in axes] == ["softmax", "identity", "local"]
  np.testing.assert_allclose(axes[0].images[0].get_array() ** 2, panels[0].weights, atol=1e-6)


def test_colours_tell_signs_apart_and_leave_zero_white():
  signed = zoo.Panel("signed", "weights", 0, np.array([[-1.0, 0.0, 1.0]]))
  image = zoo.draw_single(signed).axes[0].images[0]
  left, zero, right = image.cmap(image.norm(image.get_array()))[0]
  assert left[0] > left[2]
  assert right[2] > right[0]
  assert np.all(zero == 1.0)
