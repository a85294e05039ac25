"""Intervals over seeds, paired differences, and which rows are tied with the best.

Fewer than ten seeds are the rule here, so everything rests on Student's t: a percentile bootstrap over three seeds
covers at most 75 %. In a table of three rows or more the noise of a pair is judged by all pairs (`moderated_variance`).
The best row is picked from the same numbers that then judge it; Holm's correction therefore counts all pairs of rows,
not only the pairs with the best (with eight equal rows the latter finds a false difference in one table of ten instead
of one of twenty).

A share of 100 examples moves in steps of 0.01, and on three seeds all differences are easily equal: a standard
deviation of zero, and a certainty that is not there (a false difference in up to six of ten tables of eight equal
rows). No deviation is therefore taken for smaller than that of a difference of two numbers rounded to the step of the
table's own scores.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np

from attention_lab.results import moderated_variance

LEVEL = 0.95  # confidence level of intervals
ALPHA = 0.05  # significance level, after Holm's correction
FINEST = 10_000  # a step of scores below 1 / FINEST hides no noise, and is not looked for


@dataclasses.dataclass(frozen=True)
class Interval:
  """A mean over `n` seeds and the half-width of its interval; `half` is None with one seed: there is no interval."""

  mean: float
  half: float | None
  n: int

  @property
  def low(self) -> float:
    return self.mean - (self.half or 0.0)

  @property
  def high(self) -> float:
    return self.mean + (self.half or 0.0)


@dataclasses.dataclass(frozen=True)
class Difference:
  """The distance of a row from the best one, over the seeds that both have.

  `interval` is the 95 % interval of best minus row, not corrected, positive when the best is ahead whatever the
  direction of the metric. `p` is two-sided; `p_holm` is corrected over all pairs of rows; `adjusted` is the half-width
  that excludes 0 exactly when `p_holm` < 0.05; `deviation` is the standard deviation of the differences that `p` rests
  on, and `prior` the degrees of freedom that other pairs add to its seeds' n − 1. From `p` to `deviation` all are
  None when fewer than two seeds are shared.
  """

  interval: Interval
  p: float | None
  p_holm: float | None = None
  adjusted: float | None = None
  deviation: float | None = None
  prior: float = 0.0

  @property
  def corrected(self) -> Interval:
    """The interval that excludes 0 exactly when the row is behind; `interval` where nothing was tested."""
    return self.interval if self.adjusted is None else dataclasses.replace(self.interval, half=self.adjusted)

  @property
  def standing(self) -> str:
    """The verdict: 'behind', 'tied', or 'undecided' when there are too few shared seeds to tell."""
    if self.p_holm is None:
      return "undecided"
    return "behind" if self.p_holm < ALPHA else "tied"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """The best row of a table and the difference of every other row to it."""

  best: str
  differences: Mapping[str, Difference]


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
  """The mean and the Student-t interval of independent values, one a seed; ValueError for none or not finite."""
  sample = np.asarray(values, np.float64)
  if not sample.size or not np.isfinite(sample).all():
    raise ValueError(f"an interval needs finite values, got {list(values)}: leave diverged seeds out and say so")
  return _student(float(sample.mean()), _deviation(sample), sample.size, 0.0, level)


def paired(
  best: Mapping[int, float], row: Mapping[int, float], higher_is_better: bool = True, step: float = 0.0
) -> Difference:
  """The difference of best minus row on the seeds that both have (keys are seeds); positive where `best` is ahead.

  When all differences are equal but the rows themselves vary (a coarse metric on few seeds), their variance of zero is
  a coincidence of rounding, and the unpaired variance takes its place. The deviation is at least that of the
  difference of two numbers rounded to `step`: step / √6. ValueError when no seed is shared.
  """
  seeds = sorted(best.keys() & row.keys())
  if not seeds:
    raise ValueError(f"no shared seed: {sorted(best)} and {sorted(row)}; run both rows with the same seeds")
  ours, theirs = (np.array([values[seed] for seed in seeds], np.float64) for values in (best, row))
  sample = (ours - theirs) * (1.0 if higher_is_better else -1.0)
  deviation = _deviation(sample) or math.hypot(_deviation(ours), _deviation(theirs))
  deviation = max(deviation, step / math.sqrt(6))
  mean = float(sample.mean())
  if abs(mean) <= _rounding(ours, theirs):
    mean = 0.0
  return _judged(mean, deviation, len(seeds), 0.0)


def step(values: Sequence[float]) -> float:
  """The step of a coarse metric: the largest 1 / m of which all values are multiples, m whole; 0 for a fine metric.

  A share of 100 examples has 0.01, or a multiple of it that the values cannot be told from. m is at most `FINEST`.
  """
  counts = np.arange(1.0, FINEST + 1)
  for value in sorted(set(map(float, values))):
    counts = counts[np.abs(counts * value - np.round(counts * value)) < 2e-3]
    if not counts.size:
      return 0.0
  return 1.0 / float(counts[0])


def holm(p_values: Sequence[float]) -> list[float]:
  """Holm's step-down correction (Scandinavian Journal of Statistics 6, 1979), in the order given, not cut off at 1."""
  order = np.argsort(p_values, kind="stable")
  steps = np.asarray(p_values, np.float64)[order] * np.arange(len(order), 0, -1)
  corrected = np.empty(len(order))
  corrected[order] = np.maximum.accumulate(steps)
  return corrected.tolist()


def compare(rows: Mapping[str, Mapping[int, float]], higher_is_better: bool) -> Comparison:
  """Compares the rows of a table with the best of them.

  Args:
    rows: values by name of the row and seed; ValueError where there is none.
    higher_is_better: the direction of the metric.

  Returns:
    The best row by its mean, and the difference of each other row to it, corrected by Holm's method over all pairs.
  """
  if not rows:
    raise ValueError("nothing to compare: give at least one row with values")
  sign = 1.0 if higher_is_better else -1.0
  least = step([value for values in rows.values() for value in values.values()])
  best = max(rows, key=lambda name: sign * float(np.mean(list(rows[name].values()))))
  names, pairs = list(rows), {}
  for i, first in enumerate(names):
    for second in names[i + 1 :]:
      ahead, other = (second, first) if second == best else (first, second)
      if rows[ahead].keys() & rows[other].keys():
        pairs[ahead, other] = paired(rows[ahead], rows[other], higher_is_better, least)
  pairs = _moderated(pairs)
  tested = {names: pair.p for names, pair in pairs.items() if pair.p is not None}
  corrected = dict(zip(tested, holm(list(tested.values())), strict=True))
  differences = {
    other: _adjust(pair, corrected.get((ahead, other))) for (ahead, other), pair in pairs.items() if ahead == best
  }
  return Comparison(best, {name: differences[name] for name in names if name in differences})


def smallest_p(seeds: int) -> float:
  """The smallest two-sided p that a sign-flip permutation test can reach: 2^(1-n); 1 with one seed."""
  return 2.0 ** (1 - seeds)


def critical(alpha: float, freedom: float) -> float:
  """The value that Student's t of these degrees of freedom exceeds in size with probability `alpha`."""
  from scipy import special

  return float(special.stdtrit(freedom, 1 - alpha / 2))


def _moderated(pairs: Mapping[tuple[str, str], Difference]) -> dict[tuple[str, str], Difference]:
  """The pairs, each judged by the noise of all that share as many seeds."""
  result = dict(pairs)
  for n in {pair.interval.n for pair in pairs.values() if pair.deviation is not None}:
    alike = [key for key, pair in pairs.items() if pair.interval.n == n]
    single = [pairs[key].deviation or 0.0 for key in alike]
    deviations, prior = moderated_variance.moderated(single, n - 1, len({name for key in alike for name in key}))
    for key, deviation in zip(alike, deviations, strict=True):
      result[key] = _judged(pairs[key].interval.mean, deviation, n, prior)
  return result


def _judged(mean: float, deviation: float, n: int, prior: float) -> Difference:
  around = _student(mean, deviation, n, prior, LEVEL)
  if n < 2:
    return Difference(around, None)
  return Difference(around, _p_value(mean, deviation, n, prior), deviation=deviation, prior=prior)


def _student(mean: float, deviation: float, n: int, prior: float, level: float) -> Interval:
  if n < 2:
    return Interval(mean, None, n)
  return Interval(mean, critical(1 - level, n - 1 + prior) * deviation / math.sqrt(n), n)


def _p_value(mean: float, deviation: float, n: int, prior: float) -> float:
  from scipy import special

  if mean == 0:
    return 1.0
  return 0.0 if deviation == 0 else float(2 * special.stdtr(n - 1 + prior, -abs(mean) * math.sqrt(n) / deviation))


def _adjust(difference: Difference, corrected: float | None) -> Difference:
  if corrected is None or difference.interval.half is None:
    return difference
  half, freedom = difference.interval.half, difference.interval.n - 1 + difference.prior
  if difference.p:
    half *= critical(ALPHA * difference.p / corrected, freedom) / critical(ALPHA, freedom)
  return dataclasses.replace(difference, p_holm=min(corrected, 1.0), adjusted=half)


def _deviation(sample: np.ndarray) -> float:
  if sample.size < 2:
    return 0.0
  deviation = float(sample.std(ddof=1))
  return 0.0 if deviation <= _rounding(sample) else deviation


def _rounding(*samples: np.ndarray) -> float:
  return 1e-12 * max(float(np.abs(sample).max()) for sample in samples)
