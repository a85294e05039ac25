"""A wall chart: what every variant attends to, on one and the same input, from its exact map.

The sequence repeats itself, and a query is similar to the keys of its own kind of token: what looks for content shows
stripes, what looks for places shows bands and blocks.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from attention_lab.attention import attention_maps, spec
from attention_lab.attention.base import Attention, Call, Dims, Unsupported
from attention_lab.attention.mask import CAUSAL, FULL
from attention_lab.results import figure_files

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

TOKENS, PERIOD = 24, 8  # of the sequence
HEADS, WIDTH = 4, 16  # of the variant; WIDTH is also a head's
COLUMNS, SIDE, HEADING = 8, 1.3, 0.35  # panels in a row; inches of a panel, and of a family's heading
COLOURS = ("#b24c0c", "#ffffff", "#0c3c78")  # of negative weights, zero and positive ones; for colour-blind readers too
FAMILIES = (
  "Exact: softmax over every key",
  "Other weights over every key",
  "A part of the keys, by place or by content",
  "Time linear in T",
)


class Panel(NamedTuple):
  """One map: its spec, what kind of map it is, and which part of the chart it belongs to."""

  title: str
  note: str
  family: int
  weights: Float[np.ndarray, "T S"]


def panel(variant: Attention) -> Panel:
  """The map of the first head of a freshly initialised variant."""
  params = variant.init(jax.random.key(0), Dims(WIDTH, HEADS, HEADS, WIDTH, WIDTH, TOKENS))
  claims = variant.claims()
  q, k, v, call = _inputs(variant)
  try:
    maps, note = jax.jit(attention_maps.weights, static_argnums=0)(variant, params, q, k, v, call), "weights"
  except Unsupported:
    maps, note = jax.jit(attention_maps.sensitivity, static_argnums=0)(variant, params, q, k, v, call), "sensitivity"
  note += ", causal" if call.mask.causal else ""
  positions = jnp.arange(TOKENS)
  declared = np.asarray(variant.pattern(params, positions[:, None], positions[None]))
  family = 2 if not declared.all() else 0 if claims.exactness == "exact" else 3 if claims.time_exponent == 1 else 1
  return Panel(spec.to_string(variant), note, family, np.asarray(maps[0, 0]))


def draw(panels: Iterable[Panel]) -> "Figure":
  """All panels in one figure, family by family."""
  families: list[list[Panel]] = [[] for _ in FAMILIES]
  for single in sorted(panels, key=lambda panel: panel.title):
    families[single.family].append(single)
  rows = [(family, line) for family, members in enumerate(families) for line in _lines(members)]
  heights = [SIDE + HEADING * (not number or rows[number - 1][0] != family) for number, (family, _) in enumerate(rows)]
  with figure_files.styled({"axes.grid": False}):
    figure = figure_files.new(COLUMNS * SIDE, sum(heights))
    bands = figure.subfigures(len(rows), 1, height_ratios=heights, squeeze=False)[:, 0]
    for number, (band, (family, line)) in enumerate(zip(bands, rows, strict=True)):
      if not number or rows[number - 1][0] != family:
        band.suptitle(FAMILIES[family], x=0.01, ha="left", fontsize=11)
      columns = band.subplots(1, COLUMNS)
      for axes in columns[len(line) :]:
        axes.set_axis_off()
      for axes, single in zip(columns, line, strict=False):
        name, _, arguments = single.title.partition("(")
        _draw_map(axes, single, f"{name}\n{_short(arguments.rstrip(')') or single.note)}")
  return figure


def draw_single(single: Panel) -> "Figure":
  """One panel as a figure of its own."""
  with figure_files.styled({"axes.grid": False}):
    figure = figure_files.new(2.4, 2.4)
    _draw_map(figure.subplots(), single, "")
  return figure


def _lines(members: Sequence[Panel]) -> list[Sequence[Panel]]:
  return [members[start : start + COLUMNS] for start in range(0, len(members), COLUMNS)]


def _draw_map(axes: "Axes", single: Panel, title: str) -> None:
  """The weights by the square roots of their sizes, so that small ones are seen."""
  from matplotlib.colors import LinearSegmentedColormap

  roots = np.sign(single.weights) * np.sqrt(np.abs(single.weights))
  largest = max(float(np.abs(roots).max()), 1e-15)
  colours = LinearSegmentedColormap.from_list("signed", COLOURS, N=257)  # odd, so that zero has a colour
  axes.imshow(roots, cmap=colours, vmin=-largest, vmax=largest)
  axes.set_xticks([])
  axes.set_yticks([])
  axes.set_title(title, fontsize=6, loc="left")


def _short(text: str) -> str:
  return text if len(text) <= 24 else text[:23] + "…"


def _inputs(variant: Attention) -> tuple:
  """Queries, keys, values and layer inputs of a sequence with period `PERIOD`; causal where that is a must."""
  rng = np.random.default_rng(0)
  kinds = rng.normal(size=(PERIOD, HEADS, WIDTH))
  tokens = kinds[np.arange(TOKENS) % PERIOD] + 0.2 * rng.normal(size=(TOKENS, HEADS, WIDTH))
  arrays = {"q": tokens, "k": tokens, "v": rng.normal(size=tokens.shape)}
  q, k, v = (jnp.asarray(arrays[name][None], jnp.float32) if name in variant.projections else None for name in "qkv")
  x = jnp.asarray(tokens[None, :, 0], jnp.float32)
  return q, k, v, Call(CAUSAL if variant.claims().requires_causal else FULL, x=x)
