"""Ratios within one run and their intervals.

A ratio is taken in each round, so that what slows the whole machine cancels. From six rounds on its interval is that
of the median by order statistics (binomial): exact for any distribution, so that the spikes of a shared machine cannot
widen it. Below six rounds no order statistics reach 95 %, and Student's t on the logarithms takes their place; a
percentile bootstrap over so few covers too little. Neither knows of another hour: rounds of one run share its state.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_lab.results import statistics

LEVEL = 0.95  # confidence of the intervals
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
  """The time over the baseline's, paired by round. ValueError unless both are positive and equally many."""
  sample, paired = np.asarray(times, np.float64), np.asarray(baseline, np.float64)
  if sample.shape != paired.shape or not sample.size or min(sample.min(), paired.min()) <= 0:
    raise ValueError(f"ratios need as many positive times as the baseline has, got {sample.size} and {paired.size}")
  return positive((sample / paired).tolist())


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


def timed(times: Sequence[float], baseline: Sequence[float] | None) -> dict[str, Any]:
  """The fields of a row on its times; it has those of its baseline, of the same rounds, so that it stands alone.

  Args:
    times: seconds of one call in each round.
    baseline: those of the baseline, left out where there are none or not as many.
  """
  fields: dict[str, Any] = {"times": times, "rounds": len(times), "time": vars(positive(times))}
  if baseline is not None and len(baseline) == len(times):
    fields |= {"baseline_times": baseline, "ratio": vars(ratio(times, baseline))}
  return fields


def share_of_matmul(
  flops: int | None, times: Sequence[float], product_flops: int | None, product_times: Sequence[float]
) -> dict[str, Any]:
  """The fields of a row on its speed and its share of the matrix product's; empty where one of them is not known."""
  if not flops or not product_flops or len(product_times) != len(times):
    return {}
  shares = [flops / time * peak / product_flops for time, peak in zip(times, product_times, strict=True)]
  return {"share_of_matmul": vars(positive(shares)), "flops_per_second": flops / positive(times).median}


def _rank(n: int) -> int:
  """The largest r for which the median lies between the r-th smallest and the r-th largest with 95 %."""
  from scipy import stats

  return int(stats.binom.ppf((1 - LEVEL) / 2, n, 0.5)) or 1
