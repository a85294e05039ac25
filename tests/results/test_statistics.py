import numpy as np
import pytest
from scipy import stats

from attention_lab.results import statistics


def test_interval_is_students_t():
  values = [0.91, 0.94, 0.92, 0.97]
  low, high = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
  result = statistics.interval(values)
  np.testing.assert_allclose([result.low, result.high], [low, high], rtol=1e-12)


def test_one_seed_gives_no_interval():
  assert statistics.interval([0.5]) == statistics.Interval(0.5, None, 1)
  difference = statistics.compare({"a": {0: 0.5}, "b": {0: 0.9}}, True).differences["a"]
  assert difference.interval.half is None
  assert difference.standing == "undecided"


def test_equal_values_give_an_interval_of_zero_width():
  assert statistics.interval([1.0, 1.0, 1.0]) == statistics.Interval(1.0, 0.0, 3)
  assert statistics.interval([0.1 + 0.2] * 7).half == 0.0


@pytest.mark.parametrize("values", [[], [1.0, float("nan")], [float("inf"), 1.0]])
def test_values_without_an_interval_are_refused(values):
  with pytest.raises(ValueError, match="finite"):
    statistics.interval(values)


def test_paired_difference_is_the_paired_t_test_of_scipy():
  best, row = {0: 0.9, 1: 0.8, 2: 0.95, 3: 0.85}, {3: 0.7, 1: 0.72, 0: 0.83, 2: 0.9, 9: 0.0}
  result = statistics.paired(best, row)
  expected = stats.ttest_rel([0.9, 0.8, 0.95, 0.85], [0.83, 0.72, 0.9, 0.7])
  low, high = expected.confidence_interval(0.95)
  np.testing.assert_allclose(
    [result.p, result.interval.low, result.interval.high], [expected.pvalue, low, high], rtol=1e-9
  )
  assert result.interval.n == 4


def test_direction_of_the_metric_turns_the_sign_and_nothing_else():
  a, b = {0: 2.0, 1: 2.1, 2: 2.3}, {0: 2.5, 1: 2.4, 2: 2.9}
  lower, higher = statistics.compare({"a": a, "b": b}, False), statistics.compare({"a": a, "b": b}, True)
  assert (lower.best, higher.best) == ("a", "b")
  assert lower.differences["b"] == higher.differences["a"]
  assert lower.differences["b"].interval.mean > 0


def test_rows_without_a_shared_seed_are_refused_by_pairing_and_left_open_by_comparing():
  with pytest.raises(ValueError, match="no shared seed"):
    statistics.paired({0: 1.0}, {1: 1.0})
  assert statistics.compare({"a": {0: 1.0}, "b": {1: 0.5}}, True).differences == {}


def test_constant_rows_that_differ_are_different_and_constant_rows_that_agree_are_tied():
  rows = {"a": dict.fromkeys(range(3), 1.0), "b": dict.fromkeys(range(3), 0.1), "c": dict.fromkeys(range(3), 1.0)}
  assert _ties(rows, True) == ["a", "c"]
  assert statistics.compare(rows, True).differences["b"].p_holm < 0.01
  fine = {"a": dict.fromkeys(range(3), np.pi / 4), "b": dict.fromkeys(range(3), np.sqrt(2) / 2)}
  assert statistics.compare(fine, True).differences["b"].p_holm == 0.0


def test_step_of_a_coarse_metric_is_found_and_a_fine_metric_has_none():
  assert statistics.step([0.97, 0.99, 1.0, 0.5]) == 0.01
  assert statistics.step([359 / 360, 350 / 360]) == pytest.approx(1 / 360)
  assert statistics.step(np.float32([1 / 3, 2 / 3]).tolist()) == pytest.approx(1 / 3)
  assert statistics.step([0.0, 1.0, 1.0]) == 1.0
  assert statistics.step(np.random.default_rng(5).normal(0.9, 0.01, 6).tolist()) == 0.0


def test_rows_one_example_of_a_hundred_apart_on_three_seeds_are_tied():
  rows = {"a": dict.fromkeys(range(3), 1.0), "b": dict.fromkeys(range(3), 0.99)}
  assert _ties(rows, True) == ["a", "b"]
  assert statistics.compare(rows, True).differences["b"].deviation == pytest.approx(0.01 / np.sqrt(6))


def test_deviation_of_a_difference_is_that_of_its_seeds():
  best, row = {0: 0.913, 1: 0.871, 2: 0.955}, {0: 0.842, 1: 0.832, 2: 0.899}
  assert statistics.paired(best, row).deviation == pytest.approx(np.std([0.071, 0.039, 0.056], ddof=1))
  assert statistics.paired({0: 1.0}, {0: 0.5}).deviation is None


def test_equal_differences_of_varying_rows_do_not_count_as_certainty():
  row = {0: 0.50, 1: 0.75, 2: 1.00}
  shifted = {seed: value - 0.25 for seed, value in row.items()}
  result = statistics.paired(row, shifted)
  assert result.p > 0.05
  assert result.interval.low < 0 < result.interval.high


def test_holm_agrees_with_its_definition():
  assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
  assert statistics.holm([]) == []


def test_adjusted_interval_excludes_zero_exactly_when_the_row_is_behind():
  generator, seen = np.random.default_rng(1), set()
  for _ in range(60):
    values = generator.normal([[0.0], [-1.0], [-2.0], [-3.0]], 0.7, (4, 4))
    rows = {str(i): dict(enumerate(row)) for i, row in enumerate(values)}
    for difference in statistics.compare(rows, True).differences.values():
      seen.add(difference.standing)
      assert (difference.interval.mean > difference.adjusted) == (difference.standing == "behind")
      assert difference.adjusted >= difference.interval.half
  assert seen == {"tied", "behind"}


def test_smallest_p_of_a_sign_flip_test():
  assert [statistics.smallest_p(n) for n in (1, 2, 3, 9)] == [1.0, 0.5, 0.25, 1 / 256]


def test_planted_interval_covers_the_truth_in_95_of_100_samples():
  samples = np.random.default_rng(2).normal(0.3, 0.1, (4000, 3))
  intervals = [statistics.interval(sample) for sample in samples.tolist()]
  coverage = np.mean([interval.low <= 0.3 <= interval.high for interval in intervals])
  assert abs(coverage - 0.95) < 0.0125


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (5, 3), (6, 9)])
def test_planted_equal_rows_show_a_false_difference_in_at_most_one_table_of_twenty(rows, seeds):
  generator, tables = np.random.default_rng(rows + seeds), 1000
  values = generator.normal(size=(tables, rows, seeds)) + generator.normal(size=(tables, 1, seeds))
  false = sum(len(_ties(_rows(table), True)) < rows for table in values)
  assert false / tables <= 0.065
  assert rows > 2 or false / tables >= 0.035


def test_planted_coarse_metric_shows_no_more_false_differences_than_a_fine_one():
  generator, tables = np.random.default_rng(3), 1500
  values = generator.binomial(360, 0.97, (tables, 2, 3)) / 360
  false = sum(len(_ties(_rows(table), True)) < 2 for table in values)
  assert false / tables <= 0.065


def test_planted_difference_of_six_deviations_is_found():
  values = np.random.default_rng(4).normal(size=(200, 2, 5)) * 0.1 + np.array([[0.6], [0.0]])
  correct = sum(_ties(_rows(table), True) == ["0"] for table in values)
  assert correct / 200 >= 0.95


def _rows(table):
  return {str(name): dict(enumerate(row)) for name, row in enumerate(table)}


def _ties(rows, higher_is_better):
  """The rows that cannot be told from the best one, the best itself first."""
  result = statistics.compare(rows, higher_is_better)
  return [result.best, *(name for name, row in result.differences.items() if row.standing == "tied")]
