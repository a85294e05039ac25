"""How the rows of a comparison are brought to one footing: budgets, trials, second chances, seeds, positive control."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from attention_lab.config import nearest_hint
from attention_lab.results import statistics

BUDGETS = ("none", "parameters", "flops", "state", "time")
FEW, MANY = 3, 9  # seeds where none are asked for: of long runs, and of those that take seconds
SHORT = 1e12  # FLOPs of one seed's training, up to which MANY seeds are run: some 10 s on two cores
AUTO = "auto"


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What is done alike for every row of a table.

  seeds: a number, "auto", or "" for MANY where one run takes at most SHORT, else FEW. half_width: what "auto" asks for,
  in the unit of the metric; most: seeds at which it stops.
  """

  match: str = "none"
  trials: int = 0
  chances: bool = True
  positive: str = ""  # the row that must solve the task on every seed; "" = none
  seeds: str = ""
  half_width: float = 0.01
  most: int = 15

  def __post_init__(self) -> None:
    if self.match not in BUDGETS:
      hint = nearest_hint(self.match, BUDGETS)
      raise ValueError(f"--match={self.match} is unknown{hint}; choices: {', '.join(BUDGETS)}")
    if self.trials < 0:
      raise ValueError(f"--trials={self.trials} must be at least 0, which tunes nothing")
    if not (self.seeds in ("", AUTO) or (self.seeds.isdecimal() and int(self.seeds) >= 1)):
      raise ValueError(f"--seeds={self.seeds} must be a number of at least 1, or auto")
    if not self.half_width > 0:
      raise ValueError(f"--half_width={self.half_width} must be positive: the interval that --seeds=auto asks for")
    if self.most < FEW:
      raise ValueError(f"--most_seeds={self.most} must be at least {FEW}, where --seeds=auto begins")

  def settings(self) -> dict[str, Any]:
    """What all rows of a workdir must share, beside their configuration."""
    return {"compare.match": self.match, "compare.trials": self.trials, "compare.second_chance": self.chances}

  def first_seeds(self, flops: float | None) -> int:
    """Seeds to begin with, where one seed's training takes `flops` in all (None = not known)."""
    if self.seeds.isdecimal():
      return int(self.seeds)
    if self.seeds == AUTO:
      return FEW
    return MANY if flops is not None and flops <= SHORT else FEW

  def more_seeds(self, scores: Mapping[str, Mapping[int, float]], higher_is_better: bool) -> int:
    """How many seeds each row of a table should have, from the validation scores so far (row -> seed -> score).

    As many as now unless `seeds` is "auto" and the corrected interval of some difference to the best is wider than
    `half_width`: then as many as its deviation asks for, at most twice as many as now and at most `most`.
    """
    now = max((len(values) for values in scores.values()), default=0)
    if self.seeds != AUTO or len(scores) < 2 or now >= self.most:
      return now
    found = statistics.compare(scores, higher_is_better)
    widest = max((one.corrected.half or 0.0 for one in found.differences.values()), default=0.0)
    if widest <= self.half_width:
      return now
    wanted = math.ceil(now * (widest / self.half_width) ** 2)
    return min(self.most, max(now + 1, min(2 * now, wanted)))
