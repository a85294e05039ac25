"""Which runs a task of a comparison needs next, as a function of what its journal holds.

A journal line is one seed of one run that was judged on validation; `purpose` says what the run was for:

  trial 0, trial 1, …   a setting of the search space, with one seed that no table shows
  seeds                 the row's own seeds, at the setting that its trials chose
  ÷3, ×3                the same seeds at a third and at three times that learning rate, where the row was behind:
                        the first FEW, and all of them if these say that it is better

Each wave waits for the one before. Nothing here reads a test score, and nothing depends on when a run was killed.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from attention_lab.compare.schedule import grid, search_space
from attention_lab.compare.schedule.protocol import FEW, Protocol
from attention_lab.results import statistics

TUNING_SEED = 1_000_000  # of all trials; no table has it
RATE = "config.optimizer.learning_rate"
CHANCES = {"÷3": 1 / 3, "×3": 3.0}
SEEDS = "seeds"
AGAIN = "Diverged:"  # begins the reason of a failure that would come again

Row = Mapping[str, Any]
Draws = Mapping[str, Sequence[Mapping[str, Any]]]  # of each row, the settings of its trials


@dataclasses.dataclass(frozen=True)
class Job(grid.Cell):
  """One run: a cell's variant with `changes` of its configuration, and what it is for."""

  purpose: str = SEEDS
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def __str__(self) -> str:
    return f"{super().__str__()} · {self.purpose}" if self.purpose != SEEDS else super().__str__()


@dataclasses.dataclass(frozen=True)
class Choice:
  """The setting a row is tested at: `changes` of its configuration, and how they were found.

  second: validation means of the second chance by its name, None where that run failed; empty where it had none.
  before: the mean without it, None where that run failed. Means are of the first FEW seeds.
  """

  changes: Mapping[str, Any]
  purpose: str
  before: float | None = None
  second: Mapping[str, float | None] = dataclasses.field(default_factory=dict)

  @property
  def taken(self) -> str:
    return self.purpose if self.purpose in CHANCES else ""


class Journal:
  """The lines of a journal, by run and seed; a run that succeeded hides that it failed before.

  `tested` are the rows of the table itself: what one of them was tested at is not chosen again, and each stands for the
  line that it came from, so that a table that was kept without its journal is not run again.
  """

  def __init__(self, rows: Iterable[Row] = (), tested: Iterable[Row] = ()) -> None:
    self.runs: dict[tuple[str, str, str], dict[int, Row]] = {}
    self.taken: dict[tuple[str, str], str] = {}
    for row in rows:
      self.add(row)
    for row in tested:
      if row["status"] == "done" and row.get("tuning"):
        purpose = row["tuning"]["taken"] or SEEDS
        self.taken[row["task"], row["attention"]] = purpose
        self.add({**row, "purpose": purpose, "metrics": row["validation"]})

  def add(self, row: Row) -> None:
    """One more line."""
    held = self.runs.setdefault((row["task"], row["attention"], row["purpose"]), {})
    if held.get(row["seed"], {}).get("status") != "done":
      held[row["seed"]] = row

  def lines(self, cell: grid.Cell, purpose: str) -> dict[int, Row]:
    """Seed -> line."""
    return self.runs.get((cell.task, cell.attention, purpose), {})

  def complete(self, cell: grid.Cell) -> bool:
    """Whether every seed of the cell was run at what it was tested at."""
    taken = self.taken.get((cell.task, cell.attention))
    return taken is not None and self.scores(cell, taken, cell.seeds) is not None

  def scores(self, cell: grid.Cell, purpose: str, seeds: Collection[int]) -> dict[int, float] | None:
    """Seed -> finite validation score; None unless every one of the seeds has one."""
    found = {seed: _score(row) for seed, row in self.lines(cell, purpose).items() if seed in seeds}
    return None if len(found) < len(seeds) or None in found.values() else found


def following(
  rules: Protocol, cells: Sequence[grid.Cell], journal: Journal, draws: Draws, skipped: Callable[[Job], bool]
) -> list[Job]:
  """The next wave of one task's cells, without what is `skipped`; empty when all that can be chosen is chosen."""

  def left(jobs: Iterable[Job]) -> list[Job]:
    missing = (_missing(job, journal) for job in jobs)
    return [job for job in missing if job and not skipped(job)]

  jobs = left(_trials(rules, cells, journal, draws)) or left(_own(rules, cells, journal, draws))
  if jobs or not rules.chances:
    return jobs
  first, rest = _chances(rules, cells, journal, draws)
  return left(first) or left(rest)


def tuned(rules: Protocol, cell: grid.Cell, journal: Journal, draws: Draws) -> Mapping[str, Any]:
  """The setting of the best trial on validation, the first of equals; without trials, the row as it stands."""
  if not rules.trials:
    return {}
  rows = [journal.lines(cell, f"trial {number}").get(TUNING_SEED) for number in range(rules.trials)]
  higher = all(row.get("higher_is_better", True) for row in rows if row)
  return draws[cell.attention][search_space.choose([_score(row) for row in rows], higher)]


def choose(rules: Protocol, cell: grid.Cell, journal: Journal, draws: Draws) -> Choice:
  """What a row is tested at: its seeds' setting, unless a second chance had the better mean on validation."""
  base = tuned(rules, cell, journal, draws)
  had = [name for name in CHANCES if journal.lines(cell, name)]
  means = {name: _mean(cell, journal, name) for name in (SEEDS, *had)}
  second = {name: means[name] for name in had}
  higher = all(row.get("higher_is_better", True) for row in journal.lines(cell, SEEDS).values())
  ranked = {name: mean if higher else -mean for name, mean in means.items() if mean is not None}
  best = journal.taken.get((cell.task, cell.attention)) or (max(ranked, key=ranked.get) if ranked else SEEDS)
  return Choice(base if best == SEEDS else _scaled(cell, base, CHANCES[best]), best, means[SEEDS], second)


def standing(
  rules: Protocol, cells: Sequence[grid.Cell], journal: Journal, draws: Draws
) -> dict[str, dict[int, float]]:
  """Row -> seed -> validation score at the setting chosen so far, or, while seeds of that are missing, at its first.

  Rows without a score on every seed are left out.
  """
  found = {}
  for cell in cells:
    purposes = (choose(rules, cell, journal, draws).purpose, SEEDS)
    scores = next(filter(None, (journal.scores(cell, purpose, cell.seeds) for purpose in purposes)), None)
    if scores:
      found[cell.attention] = scores
  return found


def higher_is_better(cells: Sequence[grid.Cell], journal: Journal) -> bool:
  """The direction of the metric, by any line that has a score."""
  rows = [row for cell in cells for row in journal.lines(cell, SEEDS).values() if row["status"] == "done"]
  return rows[0]["higher_is_better"] if rows else True


def _trials(rules: Protocol, cells: Sequence[grid.Cell], journal: Journal, draws: Draws) -> Iterable[Job]:
  for cell in cells:
    for number in range(0 if journal.complete(cell) else rules.trials):
      changes = draws[cell.attention][number]
      yield Job(cell.task, cell.attention, (TUNING_SEED,), cell.settings, f"trial {number}", changes)


def _own(rules: Protocol, cells: Sequence[grid.Cell], journal: Journal, draws: Draws) -> Iterable[Job]:
  """The seeds of each row, unless it was tested at a second chance."""
  for cell in cells:
    if journal.taken.get((cell.task, cell.attention), SEEDS) == SEEDS:
      yield Job(**vars(cell), changes=tuned(rules, cell, journal, draws))


def _chances(
  rules: Protocol, cells: Sequence[grid.Cell], journal: Journal, draws: Draws
) -> tuple[list[Job], list[Job]]:
  """Those of the rows that are behind the best or diverged, and of those that were tested at one: with their first
  seeds, and with all where the first were better.
  """
  scores = standing(rules, cells, journal, draws)
  found = statistics.compare(scores, higher_is_better(cells, journal)).differences if scores else {}
  first, rest = [], []
  for cell in cells:
    base, chosen = tuned(rules, cell, journal, draws), choose(rules, cell, journal, draws).purpose
    for name in _deserved(cell, journal, cell.attention in scores, found.get(cell.attention)):
      job = Job(**vars(cell), purpose=name, changes=_scaled(cell, base, CHANCES[name]))
      first.append(dataclasses.replace(job, seeds=cell.seeds[:FEW]))
      rest += [job] * (name == chosen)
  return first, rest


def _deserved(
  cell: grid.Cell, journal: Journal, scored: bool, difference: statistics.Difference | None
) -> Collection[str]:
  """The second chances of a row: none once it was tested, but for the seeds that the one it took still lacks."""
  taken = journal.taken.get((cell.task, cell.attention))
  if taken:
    return [taken] if taken in CHANCES else []
  lost = not scored and all(map(_finished, journal.lines(cell, SEEDS).values()))
  behind = difference is not None and difference.standing == "behind"
  return list(CHANCES) if lost or behind or any(journal.lines(cell, name) for name in CHANCES) else []


def _missing(job: Job, journal: Journal) -> Job | None:
  """The job with the seeds it lacks; None if it lacks none."""
  held = journal.lines(job, job.purpose)
  seeds = tuple(seed for seed in job.seeds if seed not in held or not _finished(held[seed]))
  return dataclasses.replace(job, seeds=seeds) if seeds else None


def _finished(row: Row) -> bool:
  return row["status"] != "failed" or row["reason"].startswith(AGAIN)


def _score(row: Row | None) -> float | None:
  return row["metrics"][row["primary"]] if row and row["status"] == "done" else None


def _mean(cell: grid.Cell, journal: Journal, purpose: str) -> float | None:
  """Over the first seeds; None while one of them is missing, and where any seed diverged."""
  lost = any(_finished(row) and _score(row) is None for row in journal.lines(cell, purpose).values())
  scores = None if lost else journal.scores(cell, purpose, cell.seeds[:FEW])
  return float(np.mean(list(scores.values()))) if scores else None


def _scaled(cell: grid.Cell, changes: Mapping[str, Any], factor: float) -> dict[str, Any]:
  """The changes with the learning rate times `factor`, to three digits, so that a command can name it."""
  rate = changes.get(RATE, cell.settings[RATE])
  return {**changes, RATE: float(f"{rate * factor:.3g}")}
