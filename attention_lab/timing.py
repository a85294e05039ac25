"""Interleaved timing: rounds of all programs in one order (A B C A B C …), so that a machine's drift hits all alike."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from typing import Any

MIN_SAMPLE = 2e-3  # seconds: a shorter program runs several times in a sample, each time to its end
MAX_REPEATS = 64  # runs in one sample
LEAD_BELOW = 0.05  # seconds: a shorter program has a run that is not timed before each sample, to fill its caches
MIN_ROUNDS = 3  # an interval needs some

Clock = Callable[[], float]


@dataclasses.dataclass
class Sample:
  """A timed program: `run()` ends when the device is done, and gives the last output; `reset()` is not timed."""

  run: Callable[[], Any]
  calls: int = 1  # that one run counts for
  reset: Callable[[], Any] = lambda: None


@dataclasses.dataclass
class Timed:
  """The times of a program: seconds of one call in each round, or the reason why there are none."""

  times: list[float]
  first: float = 0.0  # seconds of the first call, warm-up
  repeats: int = 1  # runs in a sample
  lead: bool = False  # a run that is not timed goes before each sample
  problem: str = ""
  too_slow: bool = False


def warm_up(sample: Sample, seconds: float, clock: Clock = time.perf_counter) -> Timed:
  """Runs a sample twice, to choose its repeats; too slow if its rounds do not fit into the budget of `seconds`."""
  spent = []
  for _ in range(2):
    sample.reset()
    begun = clock()
    sample.run()
    spent.append(clock() - begun)
    if MIN_ROUNDS * spent[-1] > seconds:
      reason = f"one sample takes {spent[-1]:.3g} s: {MIN_ROUNDS} rounds do not fit into --seconds={seconds:g}"
      return Timed([], spent[0] / sample.calls, problem=reason, too_slow=True)
  repeats = 1 if sample.calls > 1 else min(MAX_REPEATS, max(1, round(MIN_SAMPLE / max(spent[-1], 1e-9))))
  return Timed([], spent[0] / sample.calls, repeats, spent[-1] < LEAD_BELOW)


def interleave(
  samples: Mapping[str, Sample],
  timed: Mapping[str, Timed],
  rounds: int,
  seconds: float,
  *,
  clock: Clock = time.perf_counter,
  after: Callable[[int], None] = lambda _: None,
) -> None:
  """Adds one time for each round to `timed[name].times`; after three rounds it stops when `seconds` are over.

  A program that fails has its problem noted and is left out of the rounds that follow. after: called with the number
  of rounds that are done.
  """
  begun = clock()
  for number in range(rounds):
    if number >= MIN_ROUNDS and clock() - begun > seconds:
      return
    for name, sample in samples.items():
      if not timed[name].problem:
        try:
          timed[name].times.append(_time(sample, timed[name], clock))
        except Exception as error:
          timed[name].problem = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:300]}"
    after(number + 1)


def _time(sample: Sample, timed: Timed, clock: Clock) -> float:
  if timed.lead:
    sample.reset()
    sample.run()
  sample.reset()
  begun = clock()
  for _ in range(timed.repeats):
    sample.run()
  return (clock() - begun) / (timed.repeats * sample.calls)
