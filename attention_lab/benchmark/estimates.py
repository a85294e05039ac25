"""Ratios within one run and their intervals.

A ratio is taken in each round, so that what slows the whole machine cancels. From six rounds on its interval is that
of the median by order statistics (binomial): exact for any distribution, so that the spikes of a shared machine cannot
widen it. Below six rounds no order statistics reach 95 %, and Student's t on the logarithms takes their place; a
percentile bootstrap over so few covers too little. Neither knows of another hour: rounds of one run share its state.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from attention_lab.results import statistics

LEVEL = 0.95
ENOUGH = 6  # rounds, the fewest whose smallest and largest hold the median with 95 %


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A median over rounds and its 95 % interval; None with a single round: there is no interval."""

  median: float
  low: float | None
  high: float | None
  rounds: int
  method: str  # 'order statistics' or 'student t'


def ratio(times: Sequence[float], baseline: Sequence[float]) -> Estimate:
  """Time over the baseline's, paired by round. ValueError unless both are positive and equally many."""
  ours, theirs = np.asarray(times, np.float64), np.asarray(baseline, np.float64)
  if ours.shape != theirs.shape or not ours.size or min(ours.min(), theirs.min()) <= 0:
    raise ValueError(f"ratios need as many positive times as the baseline has, got {ours.size} and {theirs.size}")
  return positive((ours / theirs).tolist())


def positive(values: Sequence[float]) -> Estimate:
  """The median of positive values, one a round."""
  sample = np.sort(np.asarray(values, np.float64))
  n, middle = sample.size, float(np.median(sample))
  if n >= ENOUGH:
    rank = _rank(n)
    return Estimate(middle, float(sample[rank - 1]), float(sample[n - rank]), n, "order statistics")
  student = statistics.interval(np.log(sample).tolist(), LEVEL)
  if student.half is None:
    return Estimate(middle, None, None, n, "student t")
  low, high = math.exp(student.low), math.exp(student.high)
  return Estimate(middle, min(low, middle), max(high, middle), n, "student t")


def _rank(n: int) -> int:
  """The largest r for which the median lies between the r-th smallest and the r-th largest with 95 %."""
  from scipy import stats

  return int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5)) or 1
