"""One pass over the workdir of a comparison: its files are read, what is missing is run, and rows are written."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import threads
from attention_lab.compare.execute import task_setup
from attention_lab.compare.execute.runner import JobRunner
from attention_lab.compare.execute.worker_pool import WorkerPool
from attention_lab.compare.schedule import grid, scheduler
from attention_lab.compare.schedule.protocol import Comparison, Protocol
from attention_lab.compare.schedule.scheduler import Choice, Job, Journal, Scheduler
from attention_lab.results import records
from attention_lab.results.records import RESULTS
from attention_lab.train import checks

JOURNAL = "journal.jsonl"
CELL_JOURNALS = "journal.*.jsonl"  # journals of cells that were run alone


class ComparisonRun:
  """The files of a workdir, and the runs that bring them to an end; `failed` counts the rows that did not succeed."""

  def __init__(self, comparison: Comparison, folder: pathlib.Path, mesh: Mesh, log: Callable[[str], None]):
    """Prepares every row; ValueError for what holds of a whole task. Nothing is written."""
    for config in comparison.tasks.values():
      checks.check(config, mesh, (0,))
    self.runner = JobRunner(comparison, folder, mesh, log)
    self.failed, self._progress = 0, grid.Progress()
    self._protocol, self._folder, self._log, self._journal_file = comparison.protocol, folder, log, JOURNAL
    held = grid.read(folder)
    self._setups = {name: task_setup.prepare(self.runner, name, held, folder, log) for name in comparison.tasks}

  def open(self, only: int = 0) -> list[grid.Cell]:
    """Registers the grid and reads what is done.

    Args:
      only: the number of one cell, from 1; 0 = all.

    Returns:
      The cells that are to be run, without those that are refused.

    Raises:
      ValueError: for a number that no cell has, or settings other than the workdir's.
    """
    comparison = self.runner.comparison
    cells = [self._setups[name].cell(row, comparison.settings(name)) for name, row in comparison.cells()]
    if not 0 <= only <= len(cells):
      raise ValueError(f"--cell={only} is no cell: this comparison has {len(cells)}; give 1 to {len(cells)}")
    held = records.read(self._folder / RESULTS)
    self._check_threads(held.rows)
    grid.register(self._folder, cells)
    for setup in self._setups.values():
      task_setup.save_budgets(self._folder, self.runner, setup)
    if only:
      self._journal_file = JOURNAL.replace(".", f".{only}.")
    else:
      self._gather_journals()
    if held.damaged:
      lines = ", ".join(map(str, held.damaged))
      self._log(f"{self._folder / RESULTS}: line {lines} was cut short by a kill and does not count")
    self._done = {records.cell(row) for row in held.rows if row["status"] != "failed"}
    journals = [self._folder / JOURNAL, *sorted(self._folder.glob(CELL_JOURNALS))]
    self._journal = Journal([row for path in journals for row in records.read(path).rows], held.rows)
    runnable = self._without_refused(cells[only - 1 : only] if only else cells)
    self._cells = {name: [cell for cell in runnable if cell.task == name] for name in comparison.tasks}
    return runnable

  def choose(
    self, name: str, cells: list[grid.Cell], pool: WorkerPool, *, alone: bool, collect: bool
  ) -> list[grid.Cell]:
    """Runs trials, seeds and second chances of one task's cells.

    Args:
      name: of the task.
      cells: its cells that are to be run.
      pool: does the runs.
      alone: whether one cell runs without its rivals, hence without a second chance.
      collect: whether trials and seeds must be there already; ValueError where some are missing.

    Returns:
      The cells with the seeds they came to have.
    """
    given_up: list[Job] = []
    for lr_retries in [False] if alone else [False, self._protocol.lr_retries]:
      protocol = dataclasses.replace(self._protocol, lr_retries=lr_retries)
      while jobs := self._next_jobs(protocol, name, cells, given_up):
        if collect and jobs[0].stage not in scheduler.LR_RETRIES:
          missing = "; ".join(dict.fromkeys(f"{job.task} · {job.attention}" for job in jobs))
          raise ValueError(
            f"--collect: these cells are not run: {missing}; run them with --cell, or leave --collect out"
          )
        given_up += self._train(jobs, pool)
        if not alone and not lr_retries and not self._next_jobs(protocol, name, cells, given_up):
          cells = self._cells[name] = self._with_more_seeds(name, cells)
    return cells

  def test(self, name: str, cells: Sequence[grid.Cell], pool: WorkerPool) -> None:
    """Touches the test split, once, for what was chosen, and writes the rows of the table."""
    plan = self._scheduler(name, self._protocol)
    jobs, choices = [], {cell.attention: plan.choose(cell) for cell in cells}
    for cell in cells:
      choice = choices[cell.attention]
      held = self._journal.records(cell, choice.stage)
      untested = [held[seed] for seed in cell.seeds if seed in held and (name, cell.attention, seed) not in self._done]
      for record in untested:
        if record["status"] != "done" or record["sealed"] is not None:
          self._write(self._row(record, choice, record.get("sealed")))
      sealed = [record for record in untested if record["status"] == "done" and record["sealed"] is None]
      runs = dict.fromkeys(tuple(record["seeds"]) for record in sealed)
      jobs += [Job(name, cell.attention, seeds, cell.settings, choice.stage, choice.changes) for seeds in runs]
    for job, rows in pool.outcomes(jobs, "test"):
      self._log(f"{job} · test")
      for row in rows:
        record = self._journal.records(job, job.stage)[row["seed"]]
        if tuple(record["seeds"]) == job.seeds:  # else a kill cut the run's records, and another run has this seed
          self._write(self._row(record, choices[job.attention], row["metrics"]) if row["status"] == "done" else row)
      self.runner.clear(job)

  def _check_threads(self, rows: Sequence[Mapping[str, Any]]) -> None:
    """Raises ValueError for rows of another number of threads: all numbers of a table are to be computed alike."""
    platform = self.runner.mesh.devices.flat[0].platform
    now = threads.record(platform).get("threads")
    others = sorted({row["threads"] for row in rows if "threads" in row} - {now})
    if now and others:
      before = ", ".join(map(str, others))
      raise ValueError(
        f"--threads={now}: {self._folder} holds rows of {before} threads: give --threads={before} or another --workdir"
      )

  def _without_refused(self, cells: Sequence[grid.Cell]) -> list[grid.Cell]:
    """The cells that can be run; those that are refused become rows with the reason."""
    runnable = []
    for cell in cells:
      reason = self._setups[cell.task].refused.get(cell.attention)
      if reason is None:
        runnable.append(cell)
        continue
      self._log(f"{cell} · refused: {reason}")
      for seed in cell.seeds:
        if (cell.task, cell.attention, seed) not in self._done:
          row = {"task": cell.task, "attention": cell.attention, "seed": seed, "status": "refused", "reason": reason}
          self._write(self.runner.stamp(cell, seed) | row)
    done = sum(all((cell.task, cell.attention, seed) in self._done for seed in cell.seeds) for cell in runnable)
    if done:
      self._log(f"{done} of {len(runnable)} cells are done: going on with the others")
    return runnable

  def _next_jobs(self, protocol: Protocol, name: str, cells: Sequence[grid.Cell], given_up: Sequence[Job]) -> list[Job]:
    """The next wave: the rows that the grid holds are rivals, and only those of `cells` are run."""
    setup, wanted = self._setups[name], {cell.attention for cell in cells}
    held = [cell for cell in grid.read(self._folder) if cell.task == name]
    rivals = [cell for cell in held if cell.attention not in setup.refused and cell.attention not in wanted]
    skipped = lambda job: job.attention not in wanted or job in given_up
    return self._scheduler(name, protocol).next_jobs([*cells, *rivals], skipped)

  def _scheduler(self, name: str, protocol: Protocol) -> Scheduler:
    return Scheduler(protocol, self._journal, self._setups[name].trial_settings)

  def _train(self, jobs: Sequence[Job], pool: WorkerPool) -> list[Job]:
    """Runs a wave into the journal, and returns the jobs that failed."""
    failed: set[tuple[str, str]] = set()

    def write(row: Mapping[str, Any]) -> None:
      self._append(self._journal_file, row)
      self._journal.add(row)
      if row["status"] != "done":
        failed.add((row["attention"], row["purpose"]))

    tested = jobs[0].stage == scheduler.SEEDS and not self._protocol.lr_retries
    self._progress.total = self._progress.done + self._planned(jobs)
    grid.record(pool.outcomes(jobs, "train", tested=tested), self._progress, write, self._log)
    return [job for job in jobs if (job.attention, job.stage) in failed]

  def _planned(self, jobs: Sequence[Job]) -> int:
    """The number of runs that are left: of all tasks, trials and seeds that are not recorded, and these second chances.

    Seeds and second chances that the scores will ask for are not known before.
    """
    count = len(jobs) if jobs[0].stage in scheduler.LR_RETRIES else 0
    for cell in (cell for cells in self._cells.values() for cell in cells if not self._journal.complete(cell)):
      trials = [f"trial {number}" for number in range(self._protocol.trials)]
      count += sum(scheduler.TUNING_SEED not in self._journal.records(cell, stage) for stage in trials)
      count += any(seed not in self._journal.records(cell, scheduler.SEEDS) for seed in cell.seeds)
    return count

  def _with_more_seeds(self, name: str, cells: list[grid.Cell]) -> list[grid.Cell]:
    """The cells with as many seeds as the protocol asks for, by the scores on validation."""
    protocol, plan = self._protocol, self._scheduler(name, self._protocol)
    count = protocol.more_seeds(plan.current_scores(cells), plan.higher_is_better(cells))
    if all(len(cell.seeds) >= count for cell in cells):
      return cells
    self._log(f"{name}: {count} seeds, for an interval of ± {protocol.half_width} (at most {protocol.most})")
    cells = [dataclasses.replace(cell, seeds=tuple(range(count))) for cell in cells]
    grid.register(self._folder, cells)
    return cells

  def _row(self, record: Mapping[str, Any], choice: Choice, metrics: Mapping[str, float] | None) -> dict[str, Any]:
    setup = self._setups[record["task"]]
    row = self.runner.row(record, choice, setup.spaces[record["attention"]])
    return row | ({"metrics": metrics, "controls": dict(setup.controls)} if metrics is not None else {})

  def _write(self, row: Mapping[str, Any]) -> None:
    self._append(RESULTS, row)
    self.failed += row["status"] == "failed"
    if row["status"] != "failed":
      self._done.add(records.cell(row))

  def _append(self, name: str, row: Mapping[str, Any]) -> None:
    if jax.process_index() == 0:
      records.append(self._folder / name, row)

  def _gather_journals(self) -> None:
    """Moves the journals of cells that were run alone into the one of the comparison."""
    for path in sorted(self._folder.glob(CELL_JOURNALS)) if jax.process_index() == 0 else []:
      for row in records.read(path).rows:
        records.append(self._folder / JOURNAL, row)
      path.unlink()
