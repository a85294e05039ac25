"""Local processes that share the runs of a wave; each keeps to its own cores, and the parent alone writes."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab import threads
from attention_lab.compare.budget.match import Budget
from attention_lab.compare.execute.runner import JobRunner
from attention_lab.compare.schedule import grid
from attention_lab.compare.schedule.protocol import Comparison
from attention_lab.compare.schedule.scheduler import Job
from attention_lab.worker_processes import WorkerProcesses

FAILURES = "failures"  # folder of the tracebacks of failed runs


def default_workers(mesh: Mesh) -> int:
  """The number of workers where none is asked for: two on a CPU of two cores or more, one on anything else."""
  single = mesh.size == jax.process_count() == 1 and mesh.devices.flat[0].platform == "cpu"
  return 2 if single and threads.cores() > 1 else 1


@dataclasses.dataclass(frozen=True)
class WorkerInit:
  """The arguments from which a worker makes its own `JobRunner`."""

  comparison: Comparison
  folder: pathlib.Path
  budgets: Mapping[tuple[str, str], Budget]


class WorkerPool:
  """A pool of `workers` processes, or none with one: then the runs are done here, one after another."""

  def __init__(self, runner: JobRunner, workers: int):
    self._runner, self._pool = runner, None
    if workers > 1:
      init = WorkerInit(runner.comparison, runner.folder, dict(runner.budgets))
      counter = multiprocessing.get_context("spawn").Value("i", 0)
      self._pool = WorkerProcesses(workers, _init_worker, (init, workers, counter))

  def __enter__(self) -> "WorkerPool":
    return self

  def __exit__(self, *error: Any) -> None:
    if self._pool:
      self._pool.__exit__(*error)

  def outcomes(self, jobs: Sequence[Job], method: str, **options: Any) -> Iterator[tuple[Job, Any]]:
    """Runs jobs and yields each with its rows, as they are done.

    Args:
      jobs: the runs, in any order.
      method: of `JobRunner`, which makes the rows: "train" or "test".
      **options: further arguments of the method.

    Raises:
      ValueError: where a worker was killed.
    """
    if self._pool is None:
      yield from ((job, _rows(self._runner, job, method, options)) for job in jobs)
      return
    waiting = {self._pool.submit(_run_job, job, method, options): job for job in jobs}
    try:
      for future in concurrent.futures.as_completed(waiting):
        yield waiting[future], future.result()
    except concurrent.futures.process.BrokenProcessPool:
      raise ValueError(
        "a worker was killed: start again, what is done is kept (fewer --workers need less memory)"
      ) from None


def _rows(runner: JobRunner, job: Job, method: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  """The rows of one job, failures included."""
  run_cell = functools.partial(getattr(runner, method), **options)
  return grid.outcome(job, run_cell, runner.folder / FAILURES, runner.stamp)


class _Worker:
  """The runner of this process, which `_init_worker` makes when the process begins."""

  runner: JobRunner


def _init_worker(init: WorkerInit, workers: int, counter: Any) -> None:
  """Takes an equal share of the cores and makes a runner."""
  with counter.get_lock():
    number, counter.value = counter.value, counter.value + 1
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number % workers :: workers] or cores)
  config = next(iter(init.comparison.tasks.values()))
  _Worker.runner = JobRunner(init.comparison, init.folder, meshes.make_mesh(config.mesh), lambda _: None)
  _Worker.runner.budgets.update(init.budgets)


def _run_job(job: Job, method: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
  return list(_rows(_Worker.runner, job, method, options))
