"""Effect sizes of differences, in units of their noise, and the number of seeds it takes to see one.

All of it is about the paired t test of `statistics`, two-sided, at its worst Holm step: alpha over the number of pairs.
`prior` are the degrees of freedom that a table's other pairs add to the n − 1 of the seeds (`moderated_variance`).
"""

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np

from attention_lab.results import statistics

POWER = 0.8  # the probability with which a difference should be found
MOST = 1000  # seeds; more than these are not counted
QUANTILES = 2000  # of a standard deviation, over which the power is averaged


def cohen(mean: float, deviation: float) -> float:
  """d_z: the mean of paired differences in units of their standard deviation (Cohen 1988, section 2.3.5).

  Infinite where the differences do not vary, 0 where there is no difference.
  """
  return mean / deviation if deviation else math.copysign(math.inf, mean) if mean else 0.0


def hedges(mean: float, deviation: float, n: int, prior: float = 0.0) -> float | None:
  """Hedges' g: `cohen` times J(n − 1 + prior), which takes out its excess on few seeds; reports show this one.

  J(m) = Γ(m / 2) / (√(m / 2) Γ((m − 1) / 2)), Hedges 1981 (Journal of Educational Statistics 6), equation 6e. None with
  fewer than three seeds, where the expectation of d_z does not exist.
  """
  if n < 3:
    return None
  half = (n - 1 + prior) / 2
  return cohen(mean, deviation) * math.exp(math.lgamma(half) - math.lgamma(half - 0.5)) / math.sqrt(half)


def probability(
  deviation: float,
  difference: float,
  n: int,
  alpha: float = statistics.ALPHA,
  tests: int = 1,
  prior: float = 0.0,
) -> float:
  """The power: the probability that a true difference of this size is significant (noncentral t distribution).

  deviation: standard deviation of the paired differences, in the metric's unit as is `difference`. n: seeds, at least
  2. tests: pairs that Holm's method corrects for. Right to 1e-4: the normal distribution is averaged over quantiles of
  the standard deviation, because `scipy.special.nctdtr` is NaN for many large shifts. ValueError for a number out of
  range.
  """
  from scipy import special

  if not (deviation >= 0 and difference > 0 and n >= 2 and 0 < alpha < 1 and tests >= 1):
    numbers = f"deviation={deviation}, difference={difference}, n={n}, alpha={alpha}, tests={tests}"
    allowed = "deviation >= 0, difference > 0, n >= 2, 0 < alpha < 1 and tests >= 1"
    raise ValueError(f"{numbers}: a paired t test needs {allowed}")
  if deviation == 0:
    return 1.0
  shift = difference * math.sqrt(n) / deviation
  reach = statistics.critical(alpha / tests, n - 1 + prior) * _deviations(n - 1 + prior)
  return float(np.mean(special.ndtr(shift - reach) + special.ndtr(-shift - reach)))


@functools.cache
def _deviations(freedom: float) -> np.ndarray:
  """Quantiles of a standard deviation of these degrees of freedom whose true one is 1."""
  from scipy import special

  return np.sqrt(2 * special.gammaincinv(freedom / 2, (np.arange(QUANTILES) + 0.5) / QUANTILES) / freedom)


def seeds_needed(
  deviation: float,
  difference: float,
  power: float = POWER,
  alpha: float = statistics.ALPHA,
  tests: int = 1,
  prior: float = 0.0,
) -> int | None:
  """The fewest seeds with which a true difference is significant with probability `power`; None above `MOST`.

  Arguments as of `probability`; ValueError for a number out of range.
  """
  _check(power, alpha)
  if probability(deviation, difference, MOST, alpha, tests, prior) < power:
    return None
  low, high = 1, MOST
  while high - low > 1:
    middle = (low + high) // 2
    enough = probability(deviation, difference, middle, alpha, tests, prior) >= power
    low, high = (low, middle) if enough else (middle, high)
  return high


def detectable(
  deviation: float, n: int, power: float = POWER, alpha: float = statistics.ALPHA, tests: int = 1, prior: float = 0.0
) -> float | None:
  """The smallest true difference that `n` seeds show with probability `power`; None with one seed, which has no test.

  Arguments as of `probability`; ValueError for a number out of range.
  """
  from scipy import optimize

  _check(power, alpha)
  if n < 2:
    return None
  if deviation == 0:
    return 0.0

  def lacking(shift: float) -> float:
    return probability(1.0, shift, n, alpha, tests, prior) - power

  most = 1.0
  while lacking(most) < 0:
    most *= 2
  return deviation * optimize.brentq(lacking, 1e-9, most)


def threshold(
  deviation: float, n: int, alpha: float = statistics.ALPHA, tests: int = 1, prior: float = 0.0
) -> float | None:
  """The observed mean difference above which `n` seeds call it significant; None with one seed, which has no test."""
  return None if n < 2 else statistics.critical(alpha / tests, n - 1 + prior) * deviation / math.sqrt(n)


def pooled(deviations: Sequence[float]) -> float:
  """The root mean square: one standard deviation for several pairs of rows with as many seeds each."""
  return math.sqrt(sum(deviation * deviation for deviation in deviations) / len(deviations))


def line(
  deviation: float,
  n: int,
  tests: int,
  noise: str,
  amount: Callable[[float], str],
  largest: float = math.inf,
  prior: float = 0.0,
) -> str:
  """Two sentences on what these seeds can show: the least significant difference, and the seeds for a smaller one.

  deviation: of the paired differences, as in `probability`; noise: the rows that vary so, in words; amount: writes a
  difference with its unit, as in `2.1 points`; largest: the difference that the metric cannot exceed. Empty where
  nothing varies.
  """
  least = threshold(deviation, n, tests=tests, prior=prior)
  seen = detectable(deviation, n, tests=tests, prior=prior)
  if least is None or seen is None:
    return "Power: no difference can be significant with 1 seed."
  if deviation == 0:
    return ""
  if least > largest:
    can = f"no difference can be significant with these {n} seeds: it would have to exceed {amount(largest)}"
  elif seen > largest:
    can = f"with {n} seeds nothing under {amount(least)} can be significant, and nothing is found with 80 % power"
  else:
    can = f"with {n} seeds nothing under {amount(least)} can be significant; {amount(seen)} are found with 80 % power"
  goal = _round(min(deviation, seen / 2, largest / 2))
  needed = seeds_needed(deviation, goal, tests=tests, prior=prior) or f"more than {MOST}"
  return f"Power: at the noise of {noise}, {can}. To see {amount(goal)} you need {needed} seeds."


def _round(value: float) -> float:
  """The largest of 1, 2 and 5 times a power of ten that is not above `value`."""
  unit = 10.0 ** math.floor(math.log10(value))
  return max(factor * unit for factor in (1, 2, 5) if factor == 1 or factor * unit <= value)


def _check(power: float, alpha: float) -> None:
  if not alpha < power < 1:
    raise ValueError(f"power={power} must lie between alpha={alpha} and 1")
