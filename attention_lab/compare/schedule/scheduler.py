"""Which runs a task of a comparison needs next, as a function of what its journal holds.

A record of the journal is one seed of one run that was judged on validation; its `purpose` is the stage of the run:

  trial 0, trial 1, …   a setting of the search space, with one seed that no table shows
  seeds                 the row's own seeds, at the setting that its trials chose
  ÷3, ×3                the second chance: the same seeds at a third and at three times that learning rate, where the
                        row was behind: the first FEW_SEEDS, and all of them if these say that it is better

Each wave waits for the one before. Nothing here reads a test score, and nothing depends on when a run was killed.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attention_lab.compare.schedule import grid, search_space
from attention_lab.compare.schedule.protocol import FEW_SEEDS, Protocol
from attention_lab.compare.schedule.search_space import RATE
from attention_lab.results import statistics

TUNING_SEED = 1_000_000  # the seed of all trials; no table has it
LR_RETRIES = {"÷3": 1 / 3, "×3": 3.0}  # stage -> factor of the learning rate
SEEDS = "seeds"  # the stage of a row's own seeds
DIVERGED = "Diverged:"  # begins the reason of a failure that another run would repeat

Row = Mapping[str, Any]
TrialSettings = Mapping[str, Sequence[Mapping[str, Any]]]  # row -> the setting of each of its trials


@dataclasses.dataclass(frozen=True)
class Job(grid.Cell):
  """One run: a cell's variant with `changes` of its configuration, and the stage that it belongs to."""

  stage: str = SEEDS
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    return f"{super().__str__()} · {self.stage}" if self.stage != SEEDS else super().__str__()


@dataclasses.dataclass(frozen=True)
class Choice:
  """The setting a row is tested at: `changes` of its configuration, and how they were found.

  retry_means: stage of the second chance -> mean validation score, None where that run failed; empty where the row had
  no second chance. first_mean: the mean without it, None where that run failed. Means are of the first FEW_SEEDS seeds.
  """

  changes: Mapping[str, Any]
  stage: str
  first_mean: float | None = None
  retry_means: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

  @property
  def selected_lr(self) -> str:
    """The second chance that was taken, "÷3" or "×3"; "" where the row keeps its learning rate."""
    return self.stage if self.stage in LR_RETRIES else ""


class Journal:
  """The records of a journal, by run and seed; a run that succeeded hides that it failed before.

  `tested` are the rows of the table itself: what one of them was tested at is not chosen again, and each stands for the
  record that it came from, so that a table that was kept without its journal is not run again.
  """

  def __init__(self, rows: Iterable[Row] = (), tested: Iterable[Row] = ()) -> None:
    self.runs: dict[tuple[str, str, str], dict[int, Row]] = {}
    self._tested_stages: dict[tuple[str, str], str] = {}
    for row in rows:
      self.add(row)
    for row in tested:
      if row["status"] == "done" and row.get("tuning"):
        stage = row["tuning"]["taken"] or SEEDS
        self._tested_stages[row["task"], row["attention"]] = stage
        self.add({**row, "purpose": stage, "metrics": row["validation"]})

  def add(self, row: Row) -> None:
    """Adds one record."""
    held = self.runs.setdefault((row["task"], row["attention"], row["purpose"]), {})
    if held.get(row["seed"], {}).get("status") != "done":
      held[row["seed"]] = row

  def records(self, cell: grid.Cell, stage: str) -> dict[int, Row]:
    """The records of a cell's run at one stage, by seed; empty where it was not run."""
    return self.runs.get((cell.task, cell.attention, stage), {})

  def tested_stage(self, cell: grid.Cell) -> str | None:
    """The stage whose setting the cell was tested at; None before its test."""
    return self._tested_stages.get((cell.task, cell.attention))

  def complete(self, cell: grid.Cell) -> bool:
    """Whether every seed of the cell was run at what it was tested at."""
    stage = self.tested_stage(cell)
    return stage is not None and self.scores(cell, stage, cell.seeds) is not None

  def scores(self, cell: grid.Cell, stage: str, seeds: Collection[int]) -> dict[int, float] | None:
    """The finite validation scores of these seeds, by seed; None unless every one of them has one."""
    scores = {seed: _score(row) for seed, row in self.records(cell, stage).items() if seed in seeds}
    finite = {seed: score for seed, score in scores.items() if score is not None}
    return finite if len(finite) == len(scores) >= len(seeds) else None


@dataclasses.dataclass(frozen=True)
class Scheduler:
  """Decides, from what a journal holds, which jobs of one task come next and which settings its rows are tested at.

  Attributes:
    protocol: what is done alike for every row; without `lr_retries` there are no second chances.
    journal: the records of what was run so far.
    trial_settings: the setting of each trial of each row.
  """

  protocol: Protocol
  journal: Journal
  trial_settings: TrialSettings

  def next_jobs(self, cells: Sequence[grid.Cell], skipped: Callable[[Job], bool]) -> list[Job]:
    """The next wave of one task's cells: trials, then seeds, then second chances.

    Args:
      cells: the rows of the task, each with the seeds that it should have; second chances are judged among them.
      skipped: whether a job is left out, as one that failed in this session is.

    Returns:
      The jobs, with the seeds that they lack; empty when all that can be chosen is chosen.
    """

    def unfinished(jobs: Iterable[Job]) -> list[Job]:
      lacking = (_with_missing_seeds(job, self.journal) for job in jobs)
      return [job for job in lacking if job and not skipped(job)]

    jobs = unfinished(self._trials(cells)) or unfinished(self._seeds(cells))
    if jobs or not self.protocol.lr_retries:
      return jobs
    first, rest = self._second_chances(cells)
    return unfinished(first) or unfinished(rest)

  def choose(self, cell: grid.Cell) -> Choice:
    """The setting a row is tested at: its seeds', unless a second chance had the better mean on validation."""
    base = self._tuned(cell)
    retried = [stage for stage in LR_RETRIES if self.journal.records(cell, stage)]
    means = {stage: _mean(cell, self.journal, stage) for stage in (SEEDS, *retried)}
    higher = all(row.get("higher_is_better", True) for row in self.journal.records(cell, SEEDS).values())
    ranked = {stage: mean if higher else -mean for stage, mean in means.items() if mean is not None}
    best = self.journal.tested_stage(cell) or max(ranked, key=ranked.__getitem__, default=SEEDS)
    changes = base if best == SEEDS else _scaled(cell, base, LR_RETRIES[best])
    return Choice(changes, best, means[SEEDS], {stage: means[stage] for stage in retried})

  def current_scores(self, cells: Sequence[grid.Cell]) -> dict[str, dict[int, float]]:
    """Validation scores by row and seed, at the setting chosen so far, or, while seeds of it are missing, at its first.

    Rows without a score on every seed are left out.
    """
    table = {}
    for cell in cells:
      stages = (self.choose(cell).stage, SEEDS)
      scores = next(filter(None, (self.journal.scores(cell, stage, cell.seeds) for stage in stages)), None)
      if scores:
        table[cell.attention] = scores
    return table

  def higher_is_better(self, cells: Sequence[grid.Cell]) -> bool:
    """The direction of the metric, by any record that has a score."""
    rows = [row for cell in cells for row in self.journal.records(cell, SEEDS).values() if row["status"] == "done"]
    return rows[0]["higher_is_better"] if rows else True

  def _tuned(self, cell: grid.Cell) -> Mapping[str, Any]:
    """The setting of the best trial on validation, the first of equals; without trials, the row as it stands."""
    trials = self.protocol.trials
    if not trials:
      return {}
    rows = [self.journal.records(cell, f"trial {number}").get(TUNING_SEED) for number in range(trials)]
    higher = all(row.get("higher_is_better", True) for row in rows if row)
    return self.trial_settings[cell.attention][search_space.choose([_score(row) for row in rows], higher)]

  def _trials(self, cells: Sequence[grid.Cell]) -> Iterable[Job]:
    for cell in cells:
      for number in range(0 if self.journal.complete(cell) else self.protocol.trials):
        changes = self.trial_settings[cell.attention][number]
        yield Job(cell.task, cell.attention, (TUNING_SEED,), cell.settings, f"trial {number}", changes)

  def _seeds(self, cells: Sequence[grid.Cell]) -> Iterable[Job]:
    """The seeds of each row, unless it was tested at a second chance."""
    for cell in cells:
      if self.journal.tested_stage(cell) in (None, SEEDS):
        yield Job(**vars(cell), changes=self._tuned(cell))

  def _second_chances(self, cells: Sequence[grid.Cell]) -> tuple[list[Job], list[Job]]:
    """The second chances of rows that are behind the best, that diverged, or that were tested at one: the jobs with the
    first seeds, and those with all seeds, where the first were better.
    """
    scores = self.current_scores(cells)
    gaps = statistics.compare(scores, self.higher_is_better(cells)).differences if scores else {}
    first, rest = [], []
    for cell in cells:
      base, chosen = self._tuned(cell), self.choose(cell).stage
      for stage in _stages_due(cell, self.journal, cell.attention in scores, gaps.get(cell.attention)):
        job = Job(**vars(cell), stage=stage, changes=_scaled(cell, base, LR_RETRIES[stage]))
        first.append(dataclasses.replace(job, seeds=cell.seeds[:FEW_SEEDS]))
        rest += [job] * (stage == chosen)
    return first, rest


def _stages_due(cell: grid.Cell, journal: Journal, scored: bool, gap: statistics.Difference | None) -> Collection[str]:
  """The second chances of a row: none once it was tested, but for the seeds that the one it took still lacks."""
  tested = journal.tested_stage(cell)
  if tested:
    return [tested] if tested in LR_RETRIES else []
  lost = not scored and all(map(_finished, journal.records(cell, SEEDS).values()))
  behind = gap is not None and gap.standing == "behind"
  begun = any(journal.records(cell, stage) for stage in LR_RETRIES)
  return list(LR_RETRIES) if lost or behind or begun else []


def _with_missing_seeds(job: Job, journal: Journal) -> Job | None:
  """The job with the seeds it lacks; None if it lacks none."""
  held = journal.records(job, job.stage)
  seeds = tuple(seed for seed in job.seeds if seed not in held or not _finished(held[seed]))
  return dataclasses.replace(job, seeds=seeds) if seeds else None


def _finished(row: Row) -> bool:
  return row["status"] != "failed" or row["reason"].startswith(DIVERGED)


def _score(row: Row | None) -> float | None:
  return row["metrics"][row["primary"]] if row and row["status"] == "done" else None


def _mean(cell: grid.Cell, journal: Journal, stage: str) -> float | None:
  """The mean score of the first seeds; None while one of them is missing, and where any seed diverged."""
  lost = any(_finished(row) and _score(row) is None for row in journal.records(cell, stage).values())
  scores = None if lost else journal.scores(cell, stage, cell.seeds[:FEW_SEEDS])
  return float(np.mean(list(scores.values()))) if scores else None


def _scaled(cell: grid.Cell, changes: Mapping[str, Any], factor: float) -> dict[str, Any]:
  """The changes with the learning rate times `factor`, to three digits, so that a command can name it."""
  rate = changes.get(RATE, cell.settings[RATE])
  return {**changes, RATE: float(f"{rate * factor:.3g}")}
