import pytest

from attention_lab import timing
from attention_lab.timing import Sample


class Clock:
  """Time that passes only when a sample runs; `log` has what happened in order."""

  def __init__(self):
    self.now, self.log = 0.0, []

  def __call__(self):
    return self.now

  def sample(self, name, seconds, calls=1):
    def run():
      self.now += seconds
      self.log.append(name)

    return Sample(run, calls, lambda: self.log.append(f"reset {name}"))


def interleaved(clock, samples, count, seconds=1e9):
  timed = {name: timing.warm_up(sample, seconds, clock) for name, sample in samples.items()}
  clock.log.clear()
  timing.interleave(samples, timed, count, seconds, clock=clock)
  return timed


def test_variants_take_turns_in_every_round():
  clock = Clock()
  timed = interleaved(clock, {name: clock.sample(name, 1.0) for name in "ABC"}, 4)
  assert [value for value in clock.log if len(value) == 1] == list("ABC" * 4)
  assert [timed[name].times for name in "ABC"] == [[1.0] * 4] * 3


def test_the_time_of_a_call_is_that_of_a_sample_over_its_calls_and_resets_are_not_in_it():
  clock = Clock()
  sample = clock.sample("A", 8.0, calls=16)
  sample.reset = lambda: setattr(clock, "now", clock.now + 100)
  assert interleaved(clock, {"A": sample}, 3)["A"].times == [0.5] * 3


def test_a_short_program_runs_often_enough_to_be_timed_after_one_run_of_its_own():
  clock = Clock()
  timed = interleaved(clock, {"A": clock.sample("A", 1e-4), "B": clock.sample("B", 1.0)}, 3)
  assert (timed["A"].repeats, timed["A"].lead, timed["B"].repeats, timed["B"].lead) == (20, True, 1, False)
  assert clock.log.count("A") == 3 * 21
  assert timed["A"].times == pytest.approx([1e-4] * 3)


def test_a_budget_ends_the_rounds_but_never_before_three():
  clock = Clock()
  assert len(interleaved(clock, {"A": clock.sample("A", 1.0)}, 50, seconds=10.0)["A"].times) == 11
  assert len(interleaved(clock, {n: clock.sample(n, 1.0) for n in "ABCD"}, 50, seconds=5.0)["A"].times) == 3


def test_a_program_whose_three_rounds_break_the_budget_is_not_run_again():
  clock = Clock()
  timed = timing.warm_up(clock.sample("A", 20.0), 30.0, clock)
  assert timed.too_slow
  assert "do not fit into --seconds=30" in timed.problem
  assert clock.log.count("A") == 1


def test_a_program_that_fails_leaves_the_others_their_rounds():
  clock = Clock()
  bad = clock.sample("B", 1.0)
  timed = {"A": timing.Timed([]), "B": timing.Timed([])}
  bad.run = lambda: (_ for _ in ()).throw(MemoryError("RESOURCE_EXHAUSTED\nmore"))
  timing.interleave({"A": clock.sample("A", 1.0), "B": bad}, timed, 5, 1e9, clock=clock)
  assert len(timed["A"].times) == 5
  assert timed["B"].problem == "MemoryError: RESOURCE_EXHAUSTED"
