import math

import numpy as np
import pytest
from scipy import stats

from attention_lab.results import formatting, power, statistics


def _points(value):
  return formatting.amount(value, "")


def test_hedges_takes_out_the_excess_of_cohens_d_on_few_seeds():
  samples = np.random.default_rng(0).normal(0.8, 1.0, (40_000, 5))
  moments = list(zip(samples.mean(axis=1).tolist(), samples.std(axis=1, ddof=1).tolist(), strict=True))
  cohen = [power.cohen(mean, deviation) for mean, deviation in moments]
  hedges = [power.hedges(mean, deviation, 5) for mean, deviation in moments]
  assert np.mean(hedges) == pytest.approx(0.8, abs=0.01)
  assert np.mean(cohen) > 0.95


def test_correction_for_few_seeds_is_as_published_and_needs_three():
  assert power.hedges(1.0, 1.0, 3) == pytest.approx(0.5642, abs=1e-4)  # Hedges 1981, table 1: J(2) and J(10)
  assert power.hedges(1.0, 1.0, 11) == pytest.approx(0.9228, abs=1e-4)
  assert power.hedges(1.0, 1.0, 2) is None


def test_effect_without_spread_is_infinite_and_without_difference_zero():
  assert (power.cohen(0.1, 0.0), power.cohen(0.0, 0.0)) == (math.inf, 0.0)
  assert formatting.effect(math.inf) == "g > 100"
  assert formatting.effect(1.25) == "g = 1.2"
  assert formatting.effect(None) == ""


@pytest.mark.parametrize("n", [2, 3, 9, 40])
@pytest.mark.parametrize("tests", [1, 28])
def test_probability_is_that_of_the_noncentral_t_distribution(n, tests):
  critical = stats.t.ppf(1 - 0.05 / tests / 2, n - 1)
  for shift in (0.5, 2.0, 5.0):
    expected = stats.nct.sf(critical, n - 1, shift) + stats.nct.cdf(-critical, n - 1, shift)
    assert power.probability(0.3, 0.3 * shift / math.sqrt(n), n, tests=tests) == pytest.approx(expected, abs=1e-4)


def test_seeds_needed_are_those_of_published_tables():
  assert power.seeds_needed(1.0, 0.5) == 34  # G*Power 3, paired t test, two-sided
  assert power.seeds_needed(1.0, 0.8) == 15
  assert power.seeds_needed(1.0, 0.5, power=0.95) == 54


@pytest.mark.parametrize("tests", [1, 10])
@pytest.mark.parametrize("difference", [0.005, 0.01, 0.2])
def test_seeds_needed_are_enough_and_one_fewer_is_not(difference, tests):
  n = power.seeds_needed(0.02, difference, tests=tests)
  assert power.probability(0.02, difference, n, tests=tests) >= 0.8
  assert n == 2 or power.probability(0.02, difference, n - 1, tests=tests) < 0.8


def test_seeds_beyond_a_thousand_are_not_counted():
  assert power.seeds_needed(1.0, 0.01) is None
  assert power.seeds_needed(0.0, 0.01) == 2


@pytest.mark.parametrize("n", [2, 3, 30])
def test_detectable_difference_is_found_with_the_promised_probability(n):
  difference = power.detectable(0.02, n, tests=6)
  assert power.probability(0.02, difference, n, tests=6) == pytest.approx(0.8, abs=1e-6)
  assert difference > power.threshold(0.02, n, tests=6)
  assert power.detectable(0.02, 1) is power.threshold(0.02, 1) is None
  assert power.detectable(0.0, n) == 0.0


def test_threshold_is_where_a_difference_of_a_table_becomes_significant():
  noise = np.array([-1.0, 0.0, 1.0])
  for factor, standing in ((0.999, "tied"), (1.001, "behind")):
    gap = power.threshold(1.0, 3) * factor
    rows = {"a": dict(enumerate((noise + gap).tolist())), "b": dict.fromkeys(range(3), 0.0)}
    assert statistics.compare(rows, True).differences["b"].standing == standing


@pytest.mark.parametrize(
  "arguments",
  [{"difference": 0.0}, {"deviation": -1.0}, {"tests": 0}, {"alpha": 1.5}, {"power": 0.01}, {"difference": math.nan}],
)
def test_numbers_out_of_range_are_refused_in_one_line(arguments):
  with pytest.raises(ValueError, match=next(iter(arguments))) as told:
    power.seeds_needed(**{"deviation": 1.0, "difference": 1.0} | arguments)
  assert "\n" not in str(told.value)


def test_line_tells_the_least_significant_difference_and_the_seeds_for_a_smaller_one():
  told = power.line(0.0085, 3, 1, "these rows", _points, 1.0)
  assert told == (
    "Power: at the noise of these rows, with 3 seeds nothing under 2.1 points can be significant; 2.8 points are found "
    f"with 80 % power. To see 0.5 points you need {power.seeds_needed(0.0085, 0.005)} seeds."
  )


def test_line_says_when_nothing_can_be_significant():
  assert "cannot" not in power.line(0.01, 9, 1, "these rows", _points, 1.0)
  told = power.line(0.3, 3, 28, "the tied rows", _points, 1.0)
  assert "no difference can be significant with these 3 seeds: it would have to exceed 100 points" in told
  assert power.line(0.3, 1, 28, "these rows", _points) == "Power: no difference can be significant with 1 seed."
  assert power.line(0.0, 3, 28, "these rows", _points) == ""


def test_line_names_what_is_out_of_reach():
  assert "nothing is found with 80 % power" in power.line(0.09, 2, 1, "these rows", _points, 1.0)
  assert "bits per byte" in power.line(0.5, 3, 1, "these rows", lambda value: formatting.amount(value, "bits per byte"))


@pytest.mark.parametrize(
  ("value", "unit", "shown"),
  [
    (0.0213, "", "2.1 points"),
    (0.01, "", "1 point"),
    (1.0, "", "100 points"),
    (0.0005, "", "0.05 points"),
    (0.123, "loss", "0.12 loss"),
    (1234.0, "bytes", "1200 bytes"),
  ],
)
def test_amounts_have_two_digits_and_a_unit(value, unit, shown):
  assert formatting.amount(value, unit) == shown
