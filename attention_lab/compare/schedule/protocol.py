"""The protocol of a comparison: the budget, trials, second chances, seeds and positive control that all rows share."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from attention_lab import config as configs
from attention_lab.config import nearest_hint
from attention_lab.results import provenance, statistics

BUDGETS = ("none", "parameters", "flops", "state", "time")
FEW_SEEDS, MANY_SEEDS = 3, 9  # seeds where none are asked for: of long runs, and of those that take seconds
SHORT_RUN_FLOPS = 1e12  # FLOPs of one seed's training up to which MANY_SEEDS are run: some 10 s on two cores
AUTO = "auto"  # value of --seeds that adds seeds until intervals are narrow enough


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What is done alike for every row of a table; ValueError, naming the flag, for a value out of range.

  Attributes:
    match: the cost that rows share with the first within 1 %, one of `BUDGETS`.
    trials: settings of the search space that are tried for each row; 0 tunes nothing.
    lr_retries: whether a row that is behind gets a second chance at other learning rates (--second_chance).
    positive: the row that must solve the task on every seed; "" = none.
    seeds: a number, "auto", or "" for MANY_SEEDS where one run takes at most SHORT_RUN_FLOPS, else FEW_SEEDS.
    half_width: half of the corrected interval that "auto" asks for, in the unit of the metric.
    most: seeds at which "auto" stops.
  """

  match: str = "none"
  trials: int = 0
  lr_retries: bool = True
  positive: str = ""
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
    if self.most < FEW_SEEDS:
      raise ValueError(f"--most_seeds={self.most} must be at least {FEW_SEEDS}, where --seeds=auto begins")

  def settings(self) -> dict[str, Any]:
    """The settings that all rows of a workdir must share, beside their configuration."""
    return {"compare.match": self.match, "compare.trials": self.trials, "compare.second_chance": self.lr_retries}

  def first_seeds(self, flops: float | None) -> int:
    """The number of seeds to begin with, where one seed's training takes `flops` in all (None = not known)."""
    if self.seeds.isdecimal():
      return int(self.seeds)
    if self.seeds == AUTO:
      return FEW_SEEDS
    return MANY_SEEDS if flops is not None and flops <= SHORT_RUN_FLOPS else FEW_SEEDS

  def more_seeds(self, scores: Mapping[str, Mapping[int, float]], higher_is_better: bool) -> int:
    """How many seeds each row of a table should have.

    Args:
      scores: validation scores so far, by row and seed.
      higher_is_better: the direction of the metric.

    Returns:
      As many as now unless `seeds` is "auto" and the corrected interval of some difference to the best is wider than
      `half_width`: then as many as its deviation asks for, at most twice as many as now and at most `most`.
    """
    now = max((len(values) for values in scores.values()), default=0)
    if self.seeds != AUTO or len(scores) < 2 or now >= self.most:
      return now
    differences = statistics.compare(scores, higher_is_better).differences.values()
    widest = max((difference.corrected.half or 0.0 for difference in differences), default=0.0)
    if widest <= self.half_width:
      return now
    wanted = math.ceil(now * (widest / self.half_width) ** 2)
    return min(self.most, max(now + 1, min(2 * now, wanted)))


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Named tasks with their settings, the rows, and the protocol that holds for all."""

  tasks: dict[str, configs.Config]  # by `BINARY` or `BINARY:DATASET`
  specs: tuple[str, ...]  # rows, as `row_spec` reads them
  protocol: Protocol = Protocol()

  def cells(self) -> list[tuple[str, str]]:
    """The task and the row of every cell, in the order of their numbers."""
    return [(name, row) for name in self.tasks for row in self.specs]

  def settings(self, name: str) -> dict[str, Any]:
    """The flat settings that all rows of a task share."""
    return provenance.settings(self.tasks[name]) | self.protocol.settings()
