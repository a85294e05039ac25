"""Local processes that share the runs of a wave; each keeps to its own cores, and the parent alone writes."""

import concurrent.futures
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.compare.budget.match import Budget
from attention_lab.compare.execute.runner import Comparison, JobRunner
from attention_lab.compare.schedule import grid
from attention_lab.compare.schedule.scheduler import Job

FAILURES = "failures"


def usual(mesh: Mesh) -> int:
  """The number of workers where none is asked for: two on a CPU of two cores or more, one on anything else."""
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
  single = mesh.size == jax.process_count() == 1 and mesh.devices.flat[0].platform == "cpu"
  return 2 if single and cores > 1 else 1


@dataclasses.dataclass(frozen=True)
class Charge:
  """What a worker needs to do any run of a comparison."""

  comparison: Comparison
  folder: pathlib.Path
  budgets: Mapping[tuple[str, str], Budget]


class WorkerPool:
  """`workers` processes, or none with one: then the runs are done here, one after another."""

  def __init__(self, office: JobRunner, workers: int):
    self._office, self._pool = office, None
    if workers > 1:
      context = multiprocessing.get_context("spawn")
      charge = Charge(office.comparison, office.folder, dict(office.budgets))
      start = (charge, workers, context.Value("i", 0))
      self._pool = concurrent.futures.ProcessPoolExecutor(workers, context, _begin, start)

  def __enter__(self) -> "Crew":
    return self

  def __exit__(self, *_: Any) -> None:
    if self._pool:
      self._pool.shutdown(wait=True, cancel_futures=True)

  def outcomes(self, jobs: Sequence[Job], what: str, **options: Any) -> Iterator[tuple[Job, Any]]:
    """(job, its rows) as they are done; `what` is the method of `Office` that makes the rows: train or test."""
    if self._pool is None:
      yield from ((job, rows(self._office, job, what, options)) for job in jobs)
      return
    waiting = {self._pool.submit(_serve, job, what, options): job for job in jobs}
    try:
      for future in concurrent.futures.as_completed(waiting):
        yield waiting[future], future.result()
    except concurrent.futures.process.BrokenProcessPool:
      raise ValueError(
        "a worker was killed: start again, what is done is kept (fewer --workers need less memory)"
      ) from None


def rows(office: JobRunner, job: Job, what: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
  """The rows of one job, failures included."""
  run_cell = functools.partial(getattr(office, what), **options)
  return grid.outcome(job, run_cell, office.folder / FAILURES, office.stamp)


class _Worker:
  """The office of this process, made when the process begins."""

  office: JobRunner | None = None


def _begin(charge: Charge, workers: int, counter: Any) -> None:
  """Takes an equal share of the cores, before JAX counts them, and opens an office; ends when its parent does."""
  threading.Thread(target=_outlive_nobody, daemon=True).start()
  with counter.get_lock():
    number, counter.value = counter.value, counter.value + 1
  if hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[number % workers :: workers] or cores)
  config = next(iter(charge.comparison.tasks.values()))
  _Worker.office = JobRunner(charge.comparison, charge.folder, meshes.make_mesh(config.mesh), _say_nothing)
  _Worker.office.budgets.update(charge.budgets)


def _outlive_nobody() -> None:
  """Ends this process with its parent, however that ends: two crews must not write one run's checkpoints."""
  parent = multiprocessing.parent_process()
  if parent:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _say_nothing(line: str) -> None:
  """What a worker says: its parent tells of every run."""


def _serve(job: Job, what: str, options: Mapping[str, Any]) -> list[dict[str, Any]]:
  return list(rows(_Worker.office, job, what, options))
