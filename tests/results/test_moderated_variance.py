import numpy as np
import pytest
from scipy import special

from attention_lab.results import moderated_variance, statistics

TABLES = 400
FALSE = 0.065


def _behind(scores):
  """How many of `rows seeds` stand behind the best."""
  rows = {str(i): dict(enumerate(row)) for i, row in enumerate(scores.tolist())}
  return sum(gap.standing == "behind" for gap in statistics.compare(rows, True).differences.values())


def test_two_rows_keep_their_own_noise():
  assert moderated_variance.moderated([0.3], 2, 2) == ([0.3], 0.0)


def test_rows_that_do_not_vary_keep_their_certainty():
  assert moderated_variance.moderated([0.0, 0.0, 0.2], 2, 3) == ([0.0, 0.0, 0.2], 0.0)


def test_no_deviation_is_made_smaller_and_small_ones_grow():
  deviations = np.abs(np.random.default_rng(0).normal(size=45)) + 1e-6
  moderated, prior = moderated_variance.moderated(deviations.tolist(), 2, 10)
  assert (np.array(moderated) >= deviations * (1 - 1e-12)).all()
  assert moderated[deviations.argmin()] > 2 * deviations.min()
  assert prior > 0


def test_pairs_that_vary_alike_have_half_of_what_the_rows_leave():
  moderated, prior = moderated_variance.moderated([0.2, 0.21, 0.19, 0.2, 0.2, 0.2], 2, 4)
  assert prior == moderated_variance.SHARE * 2 * 2
  assert moderated == pytest.approx([0.2] * 6, rel=0.06)


def test_a_prior_is_recovered_from_variances_that_follow_it():
  generator = np.random.default_rng(1)
  strength, variance, freedom = 6.0, 2.5, 4
  true = variance * strength / generator.chisquare(strength, 200_000)
  estimate = moderated_variance._prior(true * generator.chisquare(freedom, true.size) / freedom, freedom)
  assert estimate == pytest.approx((strength, variance), rel=0.03)


@pytest.mark.parametrize("value", [1e-3, 0.5, 1.6449, 40.0])
def test_trigamma_is_inverted(value):
  assert special.polygamma(1, moderated_variance._trigamma_inverse(value)) == pytest.approx(value, rel=1e-9)


def _sizes(kind, rows, generator):
  """The noise of each row of each table: `TABLES rows 1`."""
  if kind == "of its own":
    return np.exp(generator.normal(0.0, 1.0, (TABLES, rows, 1)))
  factor = {"equal": 1.0, "one row thrice as noisy": 3.0, "one row ten times as noisy": 10.0}[kind]
  return np.where(np.arange(rows) == 0, factor, 1.0)[None, :, None]


@pytest.mark.parametrize("rows", [3, 8, 14])
@pytest.mark.parametrize("kind", ["equal", "of its own", "one row thrice as noisy", "one row ten times as noisy"])
def test_planted_equal_rows_differ_falsely_in_at_most_65_of_1000_tables_whatever_their_noise(kind, rows):
  generator = np.random.default_rng(rows)
  runs = generator.normal(size=(TABLES, rows, 3)) * _sizes(kind, rows, generator)
  tables = runs + generator.normal(0.0, 1.2, (TABLES, 1, 3))
  assert sum(_behind(scores) > 0 for scores in tables) / TABLES <= FALSE


def test_difference_of_eight_deviations_among_fourteen_rows_is_found_with_three_seeds():
  tables = np.random.default_rng(3).normal(size=(60, 14, 3))
  tables[:, 0] += 8.0
  assert np.mean([_behind(scores) for scores in tables]) / 13 >= 0.9
