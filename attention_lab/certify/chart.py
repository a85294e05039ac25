"""A wall chart: what every variant attends to, on one and the same input, drawn by the probe.

The sequence repeats itself, and a query is similar to the keys of its own kind of token: what looks for content shows
stripes, what looks for places shows bands and blocks.
"""

from collections.abc import Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from attention_lab.attention import attention_maps, spec
from attention_lab.attention.base import Attention, Call, Dims, Unsupported
from attention_lab.attention.mask import CAUSAL, FULL

TOKENS, PERIOD = 24, 8  # of the sequence
HEADS, WIDTH = 4, 16  # of the variant; WIDTH is also a head's
CELL, GAP, TITLE, COLUMNS = 5, 16, 34, 8  # pixels of a map's cell, between panels and of a heading; panels in a row
INK, PAPER = (28, 32, 40), (255, 255, 255)
POSITIVE, NEGATIVE = np.array([12, 60, 120]), np.array([178, 76, 12])  # told apart by colour-blind readers too
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


def draw(panels: Iterable[Panel]) -> Image.Image:
  """All panels, in families, as one picture."""
  panels = sorted(panels, key=lambda panel: (panel.family, panel.title))
  rows, y = [], GAP
  for family, heading in enumerate(FAMILIES):
    members = [panel for panel in panels if panel.family == family]
    if members:
      rows.append((heading, y, members))
      y += TITLE + -(-len(members) // COLUMNS) * _height()
  chart = Image.new("RGB", (GAP + COLUMNS * _pitch(), y + GAP), PAPER)
  pen = ImageDraw.Draw(chart)
  for heading, top, members in rows:
    pen.text((GAP, top), heading, INK, font=ImageFont.load_default(18))
    for index, member in enumerate(members):
      corner = (GAP + index % COLUMNS * _pitch(), top + TITLE + index // COLUMNS * _height())
      _draw_panel(chart, pen, member, corner)
  return chart


def shades(weights: Float[np.ndarray, "T S"]) -> np.ndarray:
  """Colours `T S 3`: white at 0, blue above, orange below; square roots, so that small weights are seen."""
  share = np.sqrt(np.abs(weights) / max(float(np.abs(weights).max()), 1e-30))[..., None]
  ink = np.where(weights[..., None] < 0, NEGATIVE, POSITIVE)
  return np.round(255 + share * (ink - 255)).astype(np.uint8)


def _inputs(variant: Attention) -> tuple:
  """Queries, keys, values and layer inputs of a sequence with period `PERIOD`; causal where that is a must."""
  rng = np.random.default_rng(0)
  kinds = rng.normal(size=(PERIOD, HEADS, WIDTH))
  tokens = kinds[np.arange(TOKENS) % PERIOD] + 0.2 * rng.normal(size=(TOKENS, HEADS, WIDTH))
  arrays = {"q": tokens, "k": tokens, "v": rng.normal(size=tokens.shape)}
  q, k, v = (jnp.asarray(arrays[name][None], jnp.float32) if name in variant.projections else None for name in "qkv")
  x = jnp.asarray(tokens[None, :, 0], jnp.float32)
  return q, k, v, Call(CAUSAL if variant.claims().requires_causal else FULL, x=x)


def _draw_panel(chart: Image.Image, pen: ImageDraw.ImageDraw, panel: Panel, corner: tuple[int, int]) -> None:
  x, y = corner
  side = TOKENS * CELL
  name, _, arguments = panel.title.partition("(")
  pen.text((x, y), name, INK, font=ImageFont.load_default(12))
  note = _short(arguments.rstrip(")") or panel.note)
  pen.text((x, y + 15), note, (96, 102, 112), font=ImageFont.load_default(9))
  image = Image.fromarray(shades(panel.weights)).resize((side, side), Image.Resampling.NEAREST)
  chart.paste(image, (x, y + 30))
  pen.rectangle((x - 1, y + 29, x + side, y + 30 + side), outline=(190, 195, 203))


def _short(text: str) -> str:
  return text if len(text) <= 24 else text[:23] + "…"


def _pitch() -> int:
  return TOKENS * CELL + GAP


def _height() -> int:
  return TOKENS * CELL + 30 + GAP
