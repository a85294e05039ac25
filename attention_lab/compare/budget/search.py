"""Search for a whole number whose measure, which grows with it, comes nearest to a target."""

from collections.abc import Callable

Measure = Callable[[int], float]
Near = Callable[[float], bool]


def nearest(
  measure: Measure, target: float, *, start: int, least: int, most: int, step: int = 1, enough: Near = lambda _: False
) -> tuple[int, float]:
  """(n, its measure), n = `start` plus a multiple of `step` within [least, most].

  The measure does not fall as n grows. It is called for `start`, then for the lower end or at growing distances, then
  between two that are around the target: twice where a straight line says, once in the middle, and so on, so that a
  linear measure is called twice there, and any other at most three times as often as bisection would.
  enough: a measure at which the search stops before it has found the nearest, for a noisy one. What `measure` raises
  passes.
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


def _further(low: tuple[int, float], high: tuple[int, float], target: float, distance: int, step: int) -> int:
  """How far from `high` a straight line meets the target; at least twice the last distance, and at most 16 times."""
  rise = high[1] - low[1]
  need = (target - high[1]) * (high[0] - low[0]) / rise if rise > 0 else 0.0
  return min(max(_on_grid(need, step) + step, 2 * distance), 16 * distance)


def _on_grid(distance: float, step: int) -> int:
  return max(int(distance) // step, 1) * step


def _between(
  measure: Measure, target: float, low: tuple[int, float], high: tuple[int, float], step: int, enough: Near
) -> tuple[int, float]:
  """The nearer of two neighbours around the target; low and high are around it."""
  turn = 0
  while high[0] - low[0] > step:
    gap = (high[0] - low[0]) // step
    straight = turn % 3 < 2 and high[1] > low[1]
    share = (target - low[1]) / (high[1] - low[1]) if straight else 0.5
    n = low[0] + min(max(int(share * gap), 1), gap - 1) * step
    found = (n, measure(n))
    if enough(found[1]):
      return found
    low, high = (found, high) if found[1] < target else (low, found)
    turn += 1
  return min(low, high, key=lambda one: abs(one[1] - target))
