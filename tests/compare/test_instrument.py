"""Planted tests of the whole instrument: what it finds where there is nothing, and where there is something."""

import numpy as np
import pytest

from attention_lab.compare.report import tables, verdict
from attention_lab.results import power, statistics

COMPARISONS = 1000
FALSE = 0.065
SHARED, OWN = 0.012, 0.010  # standard deviations of a seed over all rows, and of a run


def _table(scores):
  """The instrument's table of scores `rows seeds`."""
  shared = {"task": "planted", "status": "done", "primary": "accuracy", "higher_is_better": True}
  digests = {"train": "aaaa", "validation": "bbbb", "test": "cccc"}
  (table,) = tables.build(
    shared | {"attention": f"softmax {i}", "seed": seed, "metrics": {"accuracy": score}, "digests": digests}
    for i, row in enumerate(scores.tolist())
    for seed, score in enumerate(row)
  )
  return table


def _standings(scores):
  """The standing of each variant as a report prints it."""
  table = _table(scores)
  return {entry.attention: verdict.standing(entry, table) for entry in table.entries}


def _behind(scores):
  """The rows of `rows seeds` that stand behind the best one, by the comparison that tables are made of."""
  rows = {f"softmax {i}": dict(enumerate(row)) for i, row in enumerate(scores.tolist())}
  differences = statistics.compare(rows, True).differences
  return {name for name, difference in differences.items() if difference.standing == "behind"}


def _equal(generator, count, rows, seeds):
  """Scores of `rows` names of one variant: the same seeds share data and initial values, the rest is each run's own."""
  seed = generator.normal(0.9, SHARED, (count, 1, seeds))
  return seed + generator.normal(0.0, OWN, (count, rows, seeds))


@pytest.mark.parametrize(("rows", "seeds"), [(2, 3), (2, 9), (8, 5)])
def test_words_of_a_report_are_those_of_the_comparison(rows, seeds):
  gaps = np.linspace(0.0, 0.06, rows)[:, None]
  seen = set()
  for scores in _equal(np.random.default_rng(rows * seeds), 40, rows, seeds) - gaps:
    standings = _standings(scores)
    assert {name for name, standing in standings.items() if standing == "behind"} == _behind(scores)
    seen |= set(standings.values())
  assert {"behind"} < seen <= {"best", "tied best", "behind"}


@pytest.mark.parametrize("seeds", [3, 5, 9])
def test_two_names_of_one_variant_differ_falsely_in_at_most_65_of_1000_comparisons(seeds):
  planted = _equal(np.random.default_rng(seeds), COMPARISONS, 2, seeds)
  false = sum(bool(_behind(scores)) for scores in planted)
  assert 0.03 <= false / COMPARISONS <= FALSE


@pytest.mark.parametrize("seeds", [3, 9])
def test_eight_names_of_one_variant_differ_falsely_in_at_most_65_of_1000_comparisons(seeds):
  planted = _equal(np.random.default_rng(10 + seeds), COMPARISONS, 8, seeds)
  false = sum(bool(_behind(scores)) for scores in planted)
  assert 0 < false / COMPARISONS <= FALSE


@pytest.mark.parametrize(
  ("rows", "seeds", "accuracy"), [(2, 3, 0.9), (2, 3, 0.995), (2, 5, 0.99), (8, 3, 0.99), (8, 5, 0.995)]
)
def test_accuracies_of_a_hundred_examples_give_no_more_false_differences(rows, seeds, accuracy):
  generator = np.random.default_rng(rows * seeds)
  planted = generator.binomial(100, accuracy, (COMPARISONS, rows, seeds)) / 100
  assert sum(bool(_behind(scores)) for scores in planted) / COMPARISONS <= FALSE


def test_difference_of_one_point_is_found_with_the_promised_power():
  deviation = OWN * np.sqrt(2)
  seeds = power.seeds_needed(deviation, 0.01)
  planted = _equal(np.random.default_rng(21), COMPARISONS, 2, seeds) - np.array([[0.0], [0.01]])
  share = sum("softmax 1" in _behind(scores) for scores in planted) / COMPARISONS
  error = np.sqrt(0.8 * 0.2 / COMPARISONS)
  assert 0.8 - 2 * error <= share <= power.probability(deviation, 0.01, seeds) + 3 * error


def test_one_point_is_found_with_the_promised_power_among_other_rows():
  rows, count = 4, COMPARISONS // 2
  seeds = power.seeds_needed(OWN * np.sqrt(2), 0.01, tests=rows * (rows - 1) // 2)
  lower = np.array([0.0, 0.1, 0.2, 0.01])[:, None]
  planted = _equal(np.random.default_rng(22), count, rows, seeds) - lower
  share = sum("softmax 3" in _behind(scores) for scores in planted) / count
  assert share >= 0.8 - 2 * np.sqrt(0.8 * 0.2 / count)


def test_fewer_seeds_than_promised_miss_the_planted_point_more_often():
  planted = _equal(np.random.default_rng(23), COMPARISONS // 2, 2, 5) - np.array([[0.0], [0.01]])
  share = sum("softmax 1" in _behind(scores) for scores in planted) / len(planted)
  expected = power.probability(OWN * np.sqrt(2), 0.01, 5)
  assert abs(share - expected) < 0.06
  assert share < 0.5


@pytest.mark.parametrize(
  ("fields", "named"),
  [
    ({"budget": {"match": "parameters", "target": 100, "value": 120, "changed": {}}}, "120 parameters"),
    ({"tuning": {"trials": 32, "chances": False, "space": {}}}, "--trials"),
    ({"tuning": {"trials": 0, "chances": True, "space": {}}}, "--second_chance"),
    ({"digests": {"train": "aaaa", "validation": "cccc", "test": "cccc"}}, "validation and test are the same data"),
  ],
)
def test_unfair_grids_are_refused_by_name(fields, named):
  rows = [row for entry in _table(np.array([[0.9, 0.8], [0.7, 0.8]])).entries for row in entry.rows]
  budget = {"match": "parameters", "target": 100, "value": 100, "changed": {}}
  rows = [row | ({"budget": budget} if "budget" in fields else {}) for row in rows]
  assert len(tables.build(rows)) == 1
  with pytest.raises(ValueError, match=named) as told:
    tables.build([row | (fields if row["attention"] == "softmax 1" else {}) for row in rows])
  assert told.value.args[0].startswith("planted: ")
  assert "digests" in fields or "`softmax 1`" in str(told.value)
