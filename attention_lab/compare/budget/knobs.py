"""What may be changed in a row's model to meet a budget: widths, and the sizes that its variants declare."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.config import ModelConfig

NARROWEST = 8  # an MLP or a model is made no narrower than this
LARGEST = 64  # times its own value: a knob is turned no further

Changes = dict[str, Any]  # fields of config.model


@dataclasses.dataclass(frozen=True)
class Knob:
  """One whole number of the model; `set` gives the fields of config.model that a value stands for."""

  name: str
  base: int  # the row's own value
  set: Callable[[int], Changes]
  least: int = 1
  steps: tuple[int, ...] = (1,)  # to be tried: the first that the model can be built and trained with is taken
  step: int = 1

  @property
  def most(self) -> int:
    return LARGEST * self.base


def knobs(model: ModelConfig, kind: str) -> tuple[Knob | None, list[Knob], list[tuple[Knob, Knob]]]:
  """For a budget of this kind: the fine knob, the coarse ones in the order in which they are turned, pairs of them.

  The state: the width of heads, the variants' sizes, the model's width. Otherwise the width of the MLP, which is the
  fine one, the model's, the sizes.
  """
  sizes = list(_sizes(model))
  if kind == "state":
    wide = [_head_width(model), _width(model)]
    return None, [wide[0], *sizes, wide[1]], [(wide[0], size) for size in sizes]
  wide = [_width(model)]
  return _mlp_width(model), [*wide, *sizes], [(wide[0], size) for size in sizes]


def mixed(model: ModelConfig) -> list[str]:
  """Sizes that differ between the layers or heads of one variant, which are left as they are."""
  return [name for (_, name), values in _declared(model).items() if len(values) > 1]


def before(model: ModelConfig, names: Changes) -> Changes:
  """What the model has in the place of these changes, defaults written out."""
  default = {"mlp_width": 4 * model.width, "head_width": model.width // max(model.heads, 1)}
  held = {name: getattr(model, name) or default.get(name, 0) for name in names}
  return held | ({"attention": spec.canonical(model.attention)} if "attention" in names else {})


def _mlp_width(model: ModelConfig) -> Knob:
  return Knob("mlp_width", model.mlp_width or 4 * model.width, lambda n: {"mlp_width": n}, NARROWEST)


def _width(model: ModelConfig) -> Knob:
  """By 1 where heads have a width of their own, or there are none; else by what heads, variants and codes allow."""
  heads, unit = model.heads, _multiple(model)
  steps = (1, heads, heads * unit, 2 * heads, 4 * heads, 8 * heads)
  return Knob("width", model.width, lambda n: {"width": n}, NARROWEST, tuple(dict.fromkeys(steps)))


def _head_width(model: ModelConfig) -> Knob:
  base = model.head_width or model.width // max(model.heads, 1)
  steps = tuple(dict.fromkeys((1, _multiple(model), 2, 4, 8)))
  return Knob("head_width", base, lambda n: {"head_width": n}, 1, steps)


def _multiple(model: ModelConfig) -> int:
  """What the width of a head must be a multiple of."""
  return math.lcm(*(layer.claims().head_multiple for layer in spec.layers(model.attention, model.layers)))


def _sizes(model: ModelConfig) -> Iterator[Knob]:
  """A knob for each size that a variant declares, turned in all parts that have it; 0 is no size, and stays."""
  for (kind, name), values in _declared(model).items():
    if len(values) == 1 and min(values) > 0:
      set_ = lambda n, kind=kind, name=name: {"attention": _resized(model, kind, name, n)}
      yield Knob(name, min(values), set_, 1, (1, 2))


def _declared(model: ModelConfig) -> dict[tuple[type, str], set[int]]:
  """(class, field) -> its values in all layers and heads."""
  found: dict[tuple[type, str], set[int]] = {}
  for layer in spec.layers(model.attention, model.layers):
    for part in [part for _, part in layer.parts] if isinstance(layer, HeadMixture) else [layer]:
      for name in part.resizable:
        found.setdefault((type(part), name), set()).add(getattr(part, name))
  return found


def _resized(model: ModelConfig, kind: type, name: str, value: int) -> str:
  """The spec with `name` = value in every variant of `kind`."""

  def changed(part: Attention) -> Attention:
    if isinstance(part, HeadMixture):
      return HeadMixture(tuple((count, changed(one)) for count, one in part.parts))
    return dataclasses.replace(part, **{name: value}) if type(part) is kind else part

  found = [changed(layer) for layer in spec.layers(model.attention, model.layers)]
  period = next(n for n in range(1, len(found) + 1) if all(one == found[i % n] for i, one in enumerate(found)))
  return spec.canonical("|".join(map(spec.to_string, found[:period])))
