"""A row's model brought to a budget: the sizes that may be changed in it, and the search for their values.

Each model is measured once. The sizes are turned in order: widths first, then those that the variants declare to be
mere sizes (`Attention.resizable`).
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.head_mixture import map_variants, single_variants
from attention_lab.config import Config, ModelConfig

TOLERANCE = 0.01  # share of the target within which a budget is met
NARROWEST = 8  # the least width of an MLP or a model
LARGEST = 64  # times its value in the row: no size is made larger
AROUND = 8  # values of a coarse knob that are tried with a fine one

Changes = dict[str, Any]  # fields of config.model
Measure = Callable[[int], float]
Near = Callable[[float], bool]


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
  """The sizes that are changed for a budget of this kind.

  For the state: the width of heads, the variants' sizes, the model's width. Otherwise the width of the MLP, which is
  the fine one, the model's, the variants' sizes.

  Returns:
    The fine knob, None for the state; the coarse ones in the order in which they are turned; pairs of them.
  """
  sizes = list(_variant_sizes(model))
  if kind == "state":
    head = _head_width(model)
    return None, [head, *sizes, _width(model)], [(head, size) for size in sizes]
  width = _width(model)
  return _mlp_width(model), [width, *sizes], [(width, size) for size in sizes]


def uneven_sizes(model: ModelConfig) -> list[str]:
  """The sizes that differ between the layers or heads of one variant, which are left as they are."""
  return [name for (_, name), values in _declared_sizes(model).items() if len(values) > 1]


def before(model: ModelConfig, names: Changes) -> Changes:
  """The model's values in the place of these changes, defaults written out."""
  default = {"mlp_width": 4 * model.width, "head_width": model.width // max(model.heads, 1)}
  held = {name: getattr(model, name) or default.get(name, 0) for name in names}
  return held | ({"attention": spec.canonical(model.attention)} if "attention" in names else {})


def applied(config: Config, changed: Mapping[str, Any]) -> Config:
  """A copy of the configuration with these fields of its model."""
  config = copy.deepcopy(config)
  for name, value in changed.items():
    setattr(config.model, name, value)
  return config


class Exhausted(Exception):
  """As many models were measured as are allowed."""


class SizeSearch:
  """The search of one row for the sizes that meet a budget.

  Attributes:
    target: the cost to be met.
    tried: names of the attempts that did not meet it.
    left_out: knobs that cannot be turned, with the reason.
  """

  def __init__(
    self,
    config: Config,
    target: float,
    measure: Callable[[Config], float],
    problem: Callable[[Config], str],
    *,
    most: int,
    noisy: bool = False,
  ):
    """Begins a search, in which nothing is measured yet.

    Args:
      config: the row's configuration.
      target: the cost to be met.
      measure: the cost of a configuration.
      problem: why a configuration cannot be trained, "" if it can.
      most: models that are measured before `Exhausted` is raised.
      noisy: whether measures differ from call to call, so that a search ends at the first that is near.
    """
    self._config, self._measure, self._problem, self._most, self._noisy = config, measure, problem, most, noisy
    self._values: dict[tuple, float] = {}
    self._problems: dict[tuple, str] = {}
    self._fitted: dict[str, Knob | None] = {}
    self.target = target
    self.tried: list[str] = []
    self.left_out: list[str] = []

  def near(self, value: float) -> bool:
    """Whether a value meets the target."""
    return abs(value - self.target) <= TOLERANCE * self.target

  def value(self, changes: Changes) -> float:
    """The measure of the row's model with these changes."""
    key = tuple(sorted(changes.items()))
    if key not in self._values:
      if len(self._values) >= self._most:
        raise Exhausted
      self._values[key] = self._measure(applied(self._config, changes))
    return self._values[key]

  def closest(self) -> tuple[Changes, float]:
    """The changes whose value came nearest to the target, and the value."""
    key, value = min(self._values.items(), key=lambda item: abs(item[1] - self.target))
    return dict(key), value

  def solve(self, fine: Knob | None, coarse: list[Knob], pairs: list[tuple[Knob, Knob]]) -> Changes | None:
    """The changes of the first attempt that meets the target; None where none does.

    Attempts are the fine knob alone, then each coarse one with it; without a fine one each coarse one alone, then
    pairs (coarse, fine).
    """
    for name, attempt in self._attempts(fine, coarse, pairs):
      try:
        changes = attempt()
      except ValueError as error:
        self.left_out.append(f"{name} ({error})")
        continue
      if changes is not None:
        return changes
      self.tried.append(name)
    return None

  def _attempts(
    self, fine: Knob | None, coarse: list[Knob], pairs: list[tuple[Knob, Knob]]
  ) -> Iterator[tuple[str, Callable[[], Changes | None]]]:
    adjusts = self._fit(fine) if fine else None
    if adjusts:
      yield adjusts.name, functools.partial(self._alone, adjusts, {})
    for knob in filter(None, map(self._fit, coarse)):
      if adjusts:
        yield f"{knob.name} with {adjusts.name}", functools.partial(self._together, knob, adjusts)
      else:
        yield knob.name, functools.partial(self._alone, knob, {})
    for first, second in [] if adjusts else [(self._fit(a), self._fit(b)) for a, b in pairs]:
      if first and second:
        yield f"{first.name} with {second.name}", functools.partial(self._together, first, second)

  def _fit(self, knob: Knob) -> Knob | None:
    """The knob with the step that the model allows; None where it cannot be turned, or has no effect."""
    if knob.name not in self._fitted:
      fitted, why = self._stepped(knob)
      if fitted and not self._noisy and self.value(fitted.set(fitted.base + fitted.step)) == self.value({}):
        fitted, why = None, "no effect"
      if fitted is None:
        self.left_out.append(f"{knob.name} ({why})")
      self._fitted[knob.name] = fitted
    return self._fitted[knob.name]

  def _stepped(self, knob: Knob) -> tuple[Knob | None, str]:
    """The knob with the first of its steps that can be taken; or None, and why not the first."""
    why = ""
    for step in knob.steps:
      try:
        reason = self._trouble(knob.set(knob.base + step))
      except ValueError as error:  # of the variant itself
        reason = str(error)
      if not reason:
        least = min(knob.base, -(-knob.least // step) * step)
        return dataclasses.replace(knob, step=step, least=least), ""
      why = why or reason
    return None, why

  def _trouble(self, changes: Changes) -> str:
    key = tuple(sorted(changes.items()))
    if key not in self._problems:
      self._problems[key] = self._problem(applied(self._config, changes))
    return self._problems[key]

  def _alone(self, knob: Knob, others: Changes) -> Changes | None:
    """The changes that meet the target by this knob, with `others` as they are."""
    enough = lambda value: self._noisy and self.near(value)
    n, value = _turned(knob, lambda n: self.value(others | knob.set(n)), self.target, enough)
    changes = others | knob.set(n)
    return changes if self.near(value) and not self._trouble(changes) else None

  def _together(self, coarse: Knob, fine: Knob) -> Changes | None:
    """The changes with the coarse knob as near to its own value as may be, and the fine one within it."""
    floor = lambda n: self.value(coarse.set(n) | fine.set(fine.least))
    if floor(coarse.base) <= self.target * (1 + TOLERANCE):
      tries = [coarse.base + sign * n * coarse.step for n in range(1, AROUND) for sign in (-1, 1)][:AROUND]
    else:
      first, _ = _turned(coarse, floor, self.target)
      tries = [first - n * coarse.step for n in range(AROUND)]
    for n in tries:
      if n < coarse.least or floor(n) > self.target * (1 + TOLERANCE):
        continue
      changes = self._alone(fine, coarse.set(n))
      if changes is not None:
        return changes
    return None


def nearest(
  measure: Measure, target: float, *, start: int, least: int, most: int, step: int = 1, enough: Near = lambda _: False
) -> tuple[int, float]:
  """Searches for a whole number whose measure, which does not fall as the number grows, comes nearest to a target.

  It is measured at `start`, then at the lower end or at growing distances, then between two that are around the
  target: twice where a straight line says, once in the middle, and so on, so that a linear measure is called twice
  there, and any other at most three times as often as bisection would. What `measure` raises passes.

  Args:
    measure: of a number.
    target: of the measure.
    start: the number to begin with; all others are a multiple of `step` from it.
    least: the lowest number.
    most: the highest number.
    step: the distance of neighbours.
    enough: a measure at which the search stops before it has found the nearest, for a noisy one.

  Returns:
    The number and its measure.
  """
  value = measure(start)
  if enough(value) or value == target:
    return start, value
  low = high = (start, value)
  if value > target:
    bottom = start - (start - least) // step * step
    low = (bottom, measure(bottom))
    if low[1] >= target or enough(low[1]):
      return low
  else:
    last = start + (most - start) // step * step
    distance = _on_grid(start * (target / value - 1) if value > 0 else 0.0, step)
    while high[1] < target:
      if high[0] >= last:
        return high
      ahead = min(high[0] + distance, last)
      low, high = high, (ahead, measure(ahead))
      if enough(high[1]):
        return high
      distance = _further(low, high, target, distance, step)
  return _between(measure, target, low, high, step, enough)


def _turned(knob: Knob, measure: Measure, target: float, enough: Near = lambda _: False) -> tuple[int, float]:
  """The value of a knob whose measure comes nearest to the target, and the measure."""
  return nearest(measure, target, start=knob.base, least=knob.least, most=knob.most, step=knob.step, enough=enough)


def _further(low: tuple[int, float], high: tuple[int, float], target: float, distance: int, step: int) -> int:
  """The distance from `high` at which a straight line meets the target, within 2 and 16 times the last distance."""
  rise = high[1] - low[1]
  need = (target - high[1]) * (high[0] - low[0]) / rise if rise > 0 else 0.0
  return min(max(_on_grid(need, step) + step, 2 * distance), 16 * distance)


def _on_grid(distance: float, step: int) -> int:
  return max(int(distance) // step, 1) * step


def _between(
  measure: Measure, target: float, low: tuple[int, float], high: tuple[int, float], step: int, enough: Near
) -> tuple[int, float]:
  """The nearer of two neighbours around the target, which lies between low and high."""
  turn = 0
  while high[0] - low[0] > step:
    gap = (high[0] - low[0]) // step
    straight = turn % 3 < 2 and high[1] > low[1]
    share = (target - low[1]) / (high[1] - low[1]) if straight else 0.5
    n = low[0] + min(max(int(share * gap), 1), gap - 1) * step
    middle = (n, measure(n))
    if enough(middle[1]):
      return middle
    low, high = (middle, high) if middle[1] < target else (low, middle)
    turn += 1
  return min(low, high, key=lambda end: abs(end[1] - target))


def _mlp_width(model: ModelConfig) -> Knob:
  return Knob("mlp_width", model.mlp_width or 4 * model.width, lambda n: {"mlp_width": n}, NARROWEST)


def _width(model: ModelConfig) -> Knob:
  """The model's width, by 1 where heads have a width of their own, or there are none; else by what heads allow."""
  heads, unit = model.heads, _head_multiple(model)
  steps = (1, heads, heads * unit, 2 * heads, 4 * heads, 8 * heads)
  return Knob("width", model.width, lambda n: {"width": n}, NARROWEST, tuple(dict.fromkeys(steps)))


def _head_width(model: ModelConfig) -> Knob:
  base = model.head_width or model.width // max(model.heads, 1)
  steps = tuple(dict.fromkeys((1, _head_multiple(model), 2, 4, 8)))
  return Knob("head_width", base, lambda n: {"head_width": n}, 1, steps)


def _head_multiple(model: ModelConfig) -> int:
  """The number that the width of a head must be a multiple of."""
  return math.lcm(*(layer.claims().head_multiple for layer in spec.layers(model.attention, model.layers)))


def _variant_sizes(model: ModelConfig) -> Iterator[Knob]:
  """A knob for each size that a variant declares, turned in all parts that have it; 0 is no size, and stays."""
  for (kind, name), values in _declared_sizes(model).items():
    if len(values) == 1 and min(values) > 0:
      yield Knob(name, min(values), functools.partial(_resized, model, kind, name), 1, (1, 2))


def _declared_sizes(model: ModelConfig) -> dict[tuple[type, str], set[int]]:
  """The values of each size in all layers and heads, by class and field."""
  sizes: dict[tuple[type, str], set[int]] = {}
  for layer in spec.layers(model.attention, model.layers):
    for variant in single_variants(layer):
      for name in variant.resizable:
        sizes.setdefault((type(variant), name), set()).add(getattr(variant, name))
  return sizes


def _resized(model: ModelConfig, kind: type, name: str, value: int) -> Changes:
  """The change to the spec that has `name` = value in every variant of `kind`."""

  def changed(variant: Attention) -> Attention:
    return dataclasses.replace(variant, **{name: value}) if type(variant) is kind else variant

  layers = [map_variants(changed, layer) for layer in spec.layers(model.attention, model.layers)]
  period = next(n for n in range(1, len(layers) + 1) if all(layer == layers[i % n] for i, layer in enumerate(layers)))
  return {"attention": spec.canonical("|".join(map(spec.to_string, layers[:period])))}
