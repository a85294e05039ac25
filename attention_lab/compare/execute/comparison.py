"""One pass over the workdir of a comparison: what its files hold, what is still to be run, and what comes of it."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab.compare.execute import task_setup
from attention_lab.compare.execute.runner import Comparison, JobRunner
from attention_lab.compare.execute.worker_pool import WorkerPool
from attention_lab.compare.schedule import grid, scheduler
from attention_lab.compare.schedule.scheduler import Job, Journal
from attention_lab.results import records
from attention_lab.train import checks

RESULTS, JOURNAL = "results.jsonl", "journal.jsonl"
PARTS = "journal.*.jsonl"  # of cells that were run alone


class Session:
  """The files of a workdir, and the runs that bring them to an end; `failed` counts the rows that did not succeed."""

  def __init__(self, comparison: Comparison, folder: pathlib.Path, mesh: Mesh, log: Callable[[str], None]):
    """Prepares every row; ValueError for what holds of a whole task. Nothing is written."""
    for config in comparison.tasks.values():
      checks.check(config, mesh, (0,))
    self.office = JobRunner(comparison, folder, mesh, log)
    self.failed = 0
    self._rules, self._folder, self._log, self._part = comparison.rules, folder, log, JOURNAL
    held = grid.read(folder)
    self._grounds = {name: task_setup.prepare(self.office, name, held, folder, log) for name in comparison.tasks}

  def open(self, only: int = 0) -> list[grid.Cell]:
    """Registers the grid, reads what is done, and gives the cells that are to be run: all, or number `only`, from 1."""
    cells = self._planned()
    if not 0 <= only <= len(cells):
      raise ValueError(f"--cell={only} is no cell: this comparison has {len(cells)}; give 1 to {len(cells)}")
    grid.register(self._folder, cells)
    for found in self._grounds.values():
      task_setup.keep(self._folder, self.office, found)
    if only:
      self._part = JOURNAL.replace(".", f".{only}.")
    else:
      self._gather()
    held = records.read(self._folder / RESULTS)
    if held.damaged:
      lines = ", ".join(map(str, held.damaged))
      self._log(f"{self._folder / RESULTS}: line {lines} was cut short by a kill and does not count")
    self._done = {records.cell(row) for row in held.rows if row["status"] != "failed"}
    self._journal = Journal([row for path in self._journals() for row in records.read(path).rows], held.rows)
    return self._possible(cells[only - 1 : only] if only else cells)

  def choose(
    self, name: str, cells: list[grid.Cell], hands: WorkerPool, *, alone: bool, collect: bool
  ) -> list[grid.Cell]:
    """Runs trials, seeds and second chances of one task's cells, and gives them with the seeds they came to have.

    alone: one cell without its rivals, hence no second chance. collect: ValueError where trials or seeds are missing.
    """
    given_up: list[Job] = []
    for chances in [False] if alone else [False, self._rules.chances]:
      rules = dataclasses.replace(self._rules, chances=chances)
      while jobs := self._following(rules, name, cells, given_up):
        if collect and jobs[0].purpose not in scheduler.CHANCES:
          missing = "; ".join(dict.fromkeys(f"{job.task} · {job.attention}" for job in jobs))
          raise ValueError(
            f"--collect: these cells are not run: {missing}; run them with --cell, or leave --collect out"
          )
        given_up += self._train(jobs, hands)
        if not alone and not chances and not self._following(rules, name, cells, given_up):
          cells = self._widened(name, cells)
    return cells

  def test(self, name: str, cells: Sequence[grid.Cell], hands: WorkerPool) -> None:
    """Touches the test split, once, for what was chosen, and writes the rows of the table."""
    jobs, choices = [], {cell.attention: self._choice(cell) for cell in cells}
    for cell in cells:
      choice = choices[cell.attention]
      lines = self._journal.lines(cell, choice.purpose)
      left = [lines[seed] for seed in cell.seeds if seed in lines and (name, cell.attention, seed) not in self._done]
      for line in left:
        if line["status"] != "done" or line["sealed"] is not None:
          self._write(self._row(line, choice, line.get("sealed")))
      runs = dict.fromkeys(tuple(line["seeds"]) for line in left if line["status"] == "done" and line["sealed"] is None)
      jobs += [Job(name, cell.attention, seeds, cell.settings, choice.purpose, choice.changes) for seeds in runs]
    for job, rows in hands.outcomes(jobs, "test"):
      self._log(f"{job} · test")
      for row in rows:
        line = self._journal.lines(job, job.purpose)[row["seed"]]
        if tuple(line["seeds"]) == job.seeds:  # else a kill cut the run's lines, and another run has this seed
          self._write(self._row(line, choices[job.attention], row["metrics"]) if row["status"] == "done" else row)
      self.office.clear(job)

  def _planned(self) -> list[grid.Cell]:
    comparison = self.office.comparison
    return [self._grounds[name].cell(row, comparison.settings(name)) for name, row in comparison.places()]

  def _possible(self, cells: Sequence[grid.Cell]) -> list[grid.Cell]:
    """The cells without those that are refused, which become rows."""
    left = []
    for cell in cells:
      reason = self._grounds[cell.task].refused.get(cell.attention)
      if reason is None:
        left.append(cell)
        continue
      self._log(f"{cell} · refused: {reason}")
      for seed in cell.seeds:
        if (cell.task, cell.attention, seed) not in self._done:
          facts = {"task": cell.task, "attention": cell.attention, "seed": seed, "status": "refused", "reason": reason}
          self._write(self.office.stamp(cell, seed) | facts)
    done = sum(all((cell.task, cell.attention, seed) in self._done for seed in cell.seeds) for cell in left)
    if done:
      self._log(f"{done} of {len(left)} cells are done: going on with the others")
    return left

  def _following(self, rules: Any, name: str, cells: Sequence[grid.Cell], given_up: Sequence[Job]) -> list[Job]:
    """The next wave: the held rows of the task are rivals, and only those of `cells` are run."""
    own = {cell.attention for cell in cells}
    everything = [*cells, *(cell for cell in self._rivals(name) if cell.attention not in own)]
    skipped = lambda job: job.attention not in own or job in given_up
    return scheduler.following(rules, everything, self._journal, self._grounds[name].draws, skipped)

  def _rivals(self, name: str) -> list[grid.Cell]:
    found = self._grounds[name]
    held = [cell for cell in grid.read(self._folder) if cell.task == name]
    return [cell for cell in held if cell.attention not in found.refused]

  def _train(self, jobs: Sequence[Job], hands: WorkerPool) -> list[Job]:
    """Runs a wave into the journal; the jobs that failed."""
    failed: set[tuple[str, str]] = set()

    def write(row: Mapping[str, Any]) -> None:
      self._append(self._part, row)
      self._journal.add(row)
      if row["status"] != "done":
        failed.add((row["attention"], row["purpose"]))

    tested = jobs[0].purpose == scheduler.SEEDS and not self._rules.chances
    grid.record(hands.outcomes(jobs, "train", tested=tested), len(jobs), write, self._log)
    return [job for job in jobs if (job.attention, job.purpose) in failed]

  def _widened(self, name: str, cells: list[grid.Cell]) -> list[grid.Cell]:
    """The cells with as many seeds as the rules ask for after what validation says."""
    draws = self._grounds[name].draws
    scores = scheduler.standing(self._rules, cells, self._journal, draws)
    count = self._rules.more_seeds(scores, scheduler.higher_is_better(cells, self._journal))
    if all(len(cell.seeds) >= count for cell in cells):
      return cells
    self._log(f"{name}: {count} seeds, for an interval of ± {self._rules.half_width} (at most {self._rules.most})")
    cells = [dataclasses.replace(cell, seeds=tuple(range(count))) for cell in cells]
    grid.register(self._folder, cells)
    return cells

  def _choice(self, cell: grid.Cell) -> scheduler.Choice:
    return scheduler.choose(self._rules, cell, self._journal, self._grounds[cell.task].draws)

  def _row(
    self, line: Mapping[str, Any], choice: scheduler.Choice, metrics: Mapping[str, float] | None
  ) -> dict[str, Any]:
    found = self._grounds[line["task"]]
    own = self.office.row(line, choice, found.spaces[line["attention"]])
    return own | ({"metrics": metrics, "controls": dict(found.controls)} if metrics is not None else {})

  def _write(self, row: Mapping[str, Any]) -> None:
    self._append(RESULTS, row)
    self.failed += row["status"] == "failed"
    if row["status"] != "failed":
      self._done.add(records.cell(row))

  def _append(self, name: str, row: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
      records.append(self._folder / name, row)

  def _journals(self) -> Iterable[pathlib.Path]:
    return [self._folder / JOURNAL, *sorted(self._folder.glob(PARTS))]

  def _gather(self) -> None:
    """Takes the journals of cells that were run alone into the one of the comparison."""
    for path in sorted(self._folder.glob(PARTS)) if jax.process_index() == 0 else []:
      for row in records.read(path).rows:
        records.append(self._folder / JOURNAL, row)
      path.unlink()
