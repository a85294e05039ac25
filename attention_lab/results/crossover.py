"""Crossover lengths, from which a variant beats the best exact implementation; never one that was not measured.

Between two measured lengths the logarithm of the ratio is taken as linear in the logarithm of the length. The interval
is a percentile bootstrap over rounds: rounds of a length are drawn anew, those of one run together.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

DRAWS = 1000  # bootstrap samples of an interval
SEED = 0  # of the bootstrap

Log = Mapping[str, Any]  # name -> logarithms of a cost, one a round


@dataclasses.dataclass(frozen=True)
class Crossover:
  """The crossover of a variant.

  `length` is None if there is none within the lengths, and the first of them if the variant is ahead from there on.

  low and high: 95 % interval; an end that lies outside of what was measured is None. Without rounds there is none.
  """

  lengths: tuple[int, ...]
  length: float | None
  low: float | None = None
  high: float | None = None
  measured: bool = False  # low and high are the ends of an interval

  def __str__(self) -> str:
    """The crossover as a table shows it."""
    first, last = self.lengths[0], self.lengths[-1]
    shown = f"not within {first} … {last}"
    if self.length is not None:
      shown = f"{self.length:.0f}" if self.length > first else f"from {first}, the shortest, on"
    ends = (self.low, self.high)
    if not self.measured or ends in ((None, None), (first, first)):
      return shown
    return f"{shown} [{', '.join(self._end(end) for end in ends)}]"

  def _end(self, end: float | None) -> str:
    if end is None:
      return f"beyond {self.lengths[-1]}"
    return f"{end:.0f}" if end > self.lengths[0] else f"below {self.lengths[0]}"


def find(lengths: Sequence[int], gaps: Sequence[float]) -> float | None:
  """The length where the gap (log of the variant's cost over the best one) goes below 0 for good, or None.

  The shortest length if it is below 0 throughout: how far below that it goes nobody measured.
  """
  ahead = [gap < 0 for gap in gaps]
  if not ahead[-1]:
    return None
  if all(ahead):
    return float(lengths[0])
  i = max(index for index, is_ahead in enumerate(ahead) if not is_ahead)
  share = gaps[i] / (gaps[i] - gaps[i + 1])
  return float(math.exp(math.log(lengths[i]) + share * math.log(lengths[i + 1] / lengths[i])))


def of_costs(costs: Mapping[int, Mapping[str, float]], name: str, exact: Sequence[str]) -> Crossover | None:
  """The crossover of a cost without noise, as bytes are, by length and name; None with fewer than two lengths."""
  rounds = {length: {variant: [math.log(value)] for variant, value in row.items()} for length, row in costs.items()}
  lengths = _shared(rounds, name, exact)
  if len(lengths) < 2:
    return None
  return Crossover(lengths, find(lengths, [_gap(rounds[length], name, exact) for length in lengths]))


def of_rounds(logs: Mapping[int, Log], name: str, exact: Sequence[str], draws: int = DRAWS) -> Crossover | None:
  """The crossover of times, given as logarithms of each round by length and name; None with fewer than two lengths."""
  lengths = _shared(logs, name, exact)
  if len(lengths) < 2:
    return None
  random = np.random.default_rng(SEED)
  length = find(lengths, [_gap(logs[length], name, exact) for length in lengths])
  gaps = [[_gap(_drawn(logs[length], random), name, exact) for length in lengths] for _ in range(draws)]
  drawn = np.sort([math.inf if (end := find(lengths, row)) is None else end for row in gaps])
  ends = (float(drawn[round(q * (draws - 1))]) for q in (0.025, 0.975))
  low, high = (end if math.isfinite(end) else None for end in ends)
  return Crossover(lengths, length, low, high, True)


def _shared(rows: Mapping[int, Log], name: str, exact: Sequence[str]) -> tuple[int, ...]:
  others = set(exact) - {name}
  return tuple(sorted(length for length, row in rows.items() if name in row and others & row.keys()))


def _gap(row: Log, name: str, exact: Sequence[str]) -> float:
  best = min(float(np.median(row[other])) for other in exact if other != name and other in row)
  return float(np.median(row[name])) - best


def _drawn(row: Log, random: np.random.Generator) -> Log:
  """A bootstrap sample of the rounds; those with as many rounds were measured together and are drawn together."""
  picks: dict[int, np.ndarray] = {}
  for values in row.values():
    if len(values) not in picks:
      picks[len(values)] = random.integers(0, len(values), len(values))
  return {name: np.asarray(values)[picks[len(values)]] for name, values in row.items()}
