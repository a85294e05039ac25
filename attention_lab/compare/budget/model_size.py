"""One row on its way to a budget: its models are measured once each, and its knobs turned in order."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from attention_lab.compare.budget.knobs import Changes, Knob
from attention_lab.compare.budget.search import nearest
from attention_lab.config import Config

TOLERANCE = 0.01  # of the target
AROUND = 8  # values of a coarse knob that are tried with a fine one


class Exhausted(Exception):
  """As many models were measured as are allowed."""


def applied(config: Config, changed: Mapping[str, Any]) -> Config:
  """A copy of the configuration with these fields of its model."""
  config = copy.deepcopy(config)
  for name, value in changed.items():
    setattr(config.model, name, value)
  return config


class Row:
  """measure: what a configuration costs. problem: why it cannot be trained, "" if it can. most: models measured.

  noisy: measures differ from call to call, so that a search ends at the first within 1 %.
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
    self._config, self._measure, self._problem, self._most, self._noisy = config, measure, problem, most, noisy
    self._values: dict[tuple, float] = {}
    self._problems: dict[tuple, str] = {}
    self._fitted: dict[str, Knob | None] = {}
    self.target = target
    self.tried: list[str] = []  # ways that were gone
    self.left: list[str] = []  # knobs that cannot be turned, and why

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
    """The changes of the first way that meets the target; None where none does.

    The fine knob alone, then each coarse one with it; without it each coarse one alone, then pairs (coarse, fine).
    """
    for name, way in self._ways(fine, coarse, pairs):
      try:
        found = way()
      except ValueError as error:
        self.left.append(f"{name} ({error})")
        continue
      if found is not None:
        return found
      self.tried.append(name)
    return None

  def _ways(
    self, fine: Knob | None, coarse: list[Knob], pairs: list[tuple[Knob, Knob]]
  ) -> Iterator[tuple[str, Callable[[], Changes | None]]]:
    adjusts = self._fit(fine) if fine else None
    if adjusts:
      yield adjusts.name, lambda: self._alone(adjusts, {})
    for one in filter(None, map(self._fit, coarse)):
      if adjusts:
        yield f"{one.name} with {adjusts.name}", lambda one=one: self._together(one, adjusts)
      else:
        yield one.name, lambda one=one: self._alone(one, {})
    for one, other in [] if adjusts else [(self._fit(a), self._fit(b)) for a, b in pairs]:
      if one and other:
        yield f"{one.name} with {other.name}", lambda one=one, other=other: self._together(one, other)

  def _fit(self, knob: Knob) -> Knob | None:
    """The knob with the step that the model allows; None where it cannot be turned, or nothing comes of it."""
    if knob.name not in self._fitted:
      fitted, why = self._stepped(knob)
      if fitted and not self._noisy and self.value(fitted.set(fitted.base + fitted.step)) == self.value({}):
        fitted, why = None, "no effect"
      if fitted is None:
        self.left.append(f"{knob.name} ({why})")
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
    """The changes that meet the target by this knob, others given."""
    limits = {"start": knob.base, "least": knob.least, "most": knob.most, "step": knob.step}
    enough = lambda value: self._noisy and self.near(value)
    n, value = nearest(lambda n: self.value(others | knob.set(n)), self.target, enough=enough, **limits)
    found = others | knob.set(n)
    return found if self.near(value) and not self._trouble(found) else None

  def _together(self, coarse: Knob, fine: Knob) -> Changes | None:
    """The coarse knob as near to its own value as may be, and the fine one within it."""
    floor = lambda n: self.value(coarse.set(n) | fine.set(fine.least))
    if floor(coarse.base) <= self.target * (1 + TOLERANCE):
      tries = [coarse.base + sign * n * coarse.step for n in range(1, AROUND) for sign in (-1, 1)][:AROUND]
    else:
      limits = {"start": coarse.base, "least": coarse.least, "most": coarse.most, "step": coarse.step}
      first, _ = nearest(floor, self.target, **limits)
      tries = [first - n * coarse.step for n in range(AROUND)]
    for n in tries:
      if n < coarse.least or floor(n) > self.target * (1 + TOLERANCE):
        continue
      found = self._alone(fine, coarse.set(n))
      if found is not None:
        return found
    return None
