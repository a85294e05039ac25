import math

import numpy as np
import pytest

from attention_lab.results import benchmark_rows, crossover

LENGTHS = (256, 512, 1024, 2048)


def logs(costs, noise=0.02, seed=0, rounds=10):
  """Length -> name -> logarithms over rounds of costs given as functions of the length."""
  draw = np.random.default_rng(seed)
  return {
    n: {name: (math.log(cost(n)) + noise * draw.standard_normal(rounds)).tolist() for name, cost in costs.items()}
    for n in LENGTHS
  }


COSTS = {"softmax": lambda n: n * n, "slow": lambda n: 3 * n * n, "linear": lambda n: 700 * n}


def test_crossover_is_found_where_it_lies_by_construction():
  crossing = crossover.of_rounds(logs(COSTS), "linear", ["softmax", "slow"])
  assert crossing.low < 700 < crossing.high
  assert crossing.high / crossing.low < 1.1
  assert crossing.length == pytest.approx(700, rel=0.05)


def test_planted_interval_of_the_crossover_holds_it_in_90_of_100_runs():
  held = 0
  for seed in range(150):
    crossing = crossover.of_rounds(logs(COSTS, 0.1, seed, 20), "linear", ["softmax"], draws=200)
    held += crossing.low <= 700 <= crossing.high
  assert held / 150 > 0.88


def test_the_best_exact_implementation_counts_and_not_any():
  costs = COSTS | {"linear": lambda n: 2 * n * n}
  assert crossover.of_rounds(logs(costs), "linear", ["slow"]).length == 256
  assert crossover.of_rounds(logs(costs), "linear", ["slow", "softmax"]).length is None


def test_outside_of_the_measured_lengths_nothing_is_claimed():
  never = crossover.of_rounds(logs(COSTS | {"linear": lambda n: 3000 * n}), "linear", ["softmax"])
  assert never.length is None
  assert str(never) == "not within 256 … 2048"
  always = crossover.of_rounds(logs(COSTS | {"linear": lambda n: 10 * n}), "linear", ["softmax"])
  assert always.length == 256
  assert str(always) == "from 256, the shortest, on"


def test_an_end_that_noise_moves_outside_is_said_to_lie_there():
  late = logs(COSTS | {"linear": lambda n: 1900 * n}, 0.3)
  crossing = crossover.of_rounds(late, "linear", ["softmax"])
  assert crossing.high is None
  assert "beyond 2048" in str(crossing) or str(crossing).startswith("not within")


def test_it_must_stay_ahead_at_every_longer_length():
  assert crossover.find(LENGTHS, [-1.0, 1.0, -1.0, -1.0]) == pytest.approx(math.sqrt(512 * 1024))
  assert crossover.find(LENGTHS, [1.0, -1.0, -1.0, 1.0]) is None


def test_fewer_than_two_lengths_have_no_crossover():
  single = {256: logs(COSTS)[256]}
  assert crossover.of_rounds(single, "linear", ["softmax"]) is None
  assert crossover.of_rounds(logs(COSTS), "softmax", ["softmax"]) is None


def test_bytes_cross_without_an_interval():
  crossing = crossover.of_costs(
    {n: {name: float(cost(n)) for name, cost in COSTS.items()} for n in LENGTHS}, "linear", ["softmax"]
  )
  assert crossing.length == pytest.approx(700)
  assert str(crossing) == "700"


def test_rows_of_two_runs_meet_through_the_baseline_alone(rows):
  for row in rows[3:]:
    row["session"] = "later"
    row["times"], row["baseline_times"] = ([9.0 * t for t in row[name]] for name in ("times", "baseline_times"))
  crossing = crossover.of_rounds(benchmark_rows.log_times(rows), "linear", ["softmax"])
  assert crossing.length == pytest.approx(150, rel=0.05)
  for row in rows[:3]:
    del row["baseline_times"]
  assert "softmax" not in benchmark_rows.log_times(rows)[64]
