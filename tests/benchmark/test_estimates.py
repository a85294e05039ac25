import math

import numpy as np
import pytest

from attention_lab.benchmark import estimates


def rounds(draw, count, ratio, spikes=0.0):
  """Times of a baseline and of what takes `ratio` of its time, on a machine that drifts, and at times stalls."""
  drift = np.exp(np.cumsum(0.1 * draw.standard_normal(count)))
  stalls = np.where(draw.random((2, count)) < spikes, 5.0, 1.0)
  base, ours = drift * np.exp(0.05 * draw.standard_normal((2, count))) * stalls
  return ratio * ours, base


@pytest.mark.parametrize("count", [3, 5, 6, 20])
@pytest.mark.parametrize("spikes", [0.0, 0.1])
def test_planted_interval_covers_the_true_ratio_in_95_of_100_runs(count, spikes):
  draw = np.random.default_rng([count, int(10 * spikes)])
  held = 0
  for _ in range(600):
    estimate = estimates.ratio(*(side.tolist() for side in rounds(draw, count, 0.6, spikes)))
    held += estimate.low <= 0.6 <= estimate.high
  assert held / 600 > 0.93


def test_planted_drift_that_hits_both_leaves_the_ratio_narrow():
  ours, base = rounds(np.random.default_rng(0), 20, 0.6)
  paired, alone = estimates.ratio(ours.tolist(), base.tolist()), estimates.positive(ours.tolist())
  assert math.log(paired.high / paired.low) < math.log(alone.high / alone.low) / 2


def test_six_rounds_are_the_first_whose_ends_hold_the_median():
  estimate = estimates.positive([3.0, 1.0, 2.0, 5.0, 4.0, 6.0])
  assert (estimate.median, estimate.low, estimate.high, estimate.method) == (3.5, 1.0, 6.0, "order statistics")
  assert estimates.positive([1.0, 2.0, 3.0]).method == "student t"


def test_twenty_rounds_are_bounded_by_the_sixth_from_either_end():
  estimate = estimates.positive([float(i) for i in range(1, 21)])
  assert (estimate.low, estimate.high) == (6.0, 15.0)


def test_a_spike_in_one_round_of_twenty_does_not_widen_the_interval():
  calm = [1.0 + 0.01 * i for i in range(20)]
  assert estimates.positive([*calm[:-1], 50.0]).high == estimates.positive(calm).high


def test_one_round_has_no_interval():
  estimate = estimates.ratio([2.0], [1.0])
  assert (estimate.median, estimate.low, estimate.high) == (2.0, None, None)


@pytest.mark.parametrize("times, baseline", [([1.0], [1.0, 2.0]), ([], []), ([0.0], [1.0])])
def test_rounds_that_do_not_pair_are_refused(times, baseline):
  with pytest.raises(ValueError, match="as many positive times"):
    estimates.ratio(times, baseline)
