"""Trains and tests the runs of a comparison: one program for all seeds of a run, one row for each seed."""

import copy
import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.attention import Unsupported, spec
from attention_lab.compare.budget import model_stats
from attention_lab.compare.budget.match import Budget
from attention_lab.compare.schedule import grid, row_spec, search_space
from attention_lab.compare.schedule.protocol import Comparison
from attention_lab.compare.schedule.scheduler import Choice, Job
from attention_lab.results import provenance, records
from attention_lab.tasks import base as tasks
from attention_lab.train import loop

RUNS = "runs"  # folder of the runs' workdirs
JOURNAL_FIELDS = ("purpose", "changes", "seeds", "sealed")  # fields of a journal's record that no row of a table has


class JobRunner:
  """Builds tasks, reading each source once, and runs jobs; `budgets` are by (task, row)."""

  def __init__(self, comparison: Comparison, folder: pathlib.Path, mesh: Mesh, log: Callable[[str], None]):
    self.comparison, self.folder, self.mesh, self._log = comparison, folder, mesh, log
    self.budgets: dict[tuple[str, str], Budget] = {}
    self._sources = tasks.SourceCache()

  def config(self, cell: grid.Cell, changes: Mapping[str, Any] = {}) -> configs.Config:
    """The configuration of a cell's first seed; Unsupported for a field that its model does not have."""
    config = copy.deepcopy(self.comparison.tasks[cell.task])
    row_spec.apply(config, cell.attention)
    budget = self.budgets.get((cell.task, cell.attention))
    for name, value in (budget.changed if budget else {}).items():
      setattr(config.model, name, value)
    search_space.apply(config, changes)
    config.seed = cell.seeds[0]
    return config

  def build(self, name: str, config: configs.Config) -> tasks.Task:
    """The task `name` with the variant of `config`, whose layers are not inspected: no row shows that.

    Raises:
      Unsupported: where the variant cannot do the task.
    """
    task = tasks.load(name.partition(":")[0]).build(config, "", self.mesh, self._sources)
    return dataclasses.replace(task, inspect=None)

  def train(self, job: Job, *, tested: bool = False) -> Iterator[dict[str, Any]]:
    """Trains a job and judges it on validation.

    Args:
      job: what is run.
      tested: whether it is judged on test as well, as where nothing is left to choose.

    Yields:
      A record of the journal for each seed; "sealed" holds its test metrics, or None.
    """
    task, config = self._task(job)
    begun = time.perf_counter()
    results = self._run(task, config, job, ("validation", "test") if tested else ("validation",))
    spent = (time.perf_counter() - begun) / len(job.seeds)
    about = {
      "primary": task.primary,
      "higher_is_better": task.higher_is_better,
      "chance": task.chance,
      "digests": dict(task.source.digests),
      "state_bytes": model_stats.state_bytes(task),
      "receptive_field": model_stats.receptive_field(task, getattr(config.data, "prefix", 0)),
    }
    about |= {name: value for name, value in task.source.metadata.items() if name == "lossy"}
    for seed, result in zip(job.seeds, results, strict=True):
      metrics = result.pop("metrics")
      sealed = metrics["test"] if tested else None
      measured = {"seed": seed, "metrics": metrics["validation"], "wall_time": spent, "sealed": sealed}
      yield result | about | measured

  def test(self, job: Job) -> Iterator[dict[str, Any]]:
    """Yields the test metrics of each seed of a run that was trained with this job's seeds."""
    task, config = self._task(job)
    results = self._run(task, config, job, ("validation", "test"))
    metric = {"primary": task.primary, "higher_is_better": task.higher_is_better}
    for seed, result in zip(job.seeds, results, strict=True):
      yield metric | {"seed": seed, "metrics": result["metrics"]["test"]}

  def stamp(self, cell: grid.Cell, seed: int) -> dict[str, Any]:
    """The fields of a row or record that hold of a run whether it succeeds or not."""
    shared = self.comparison.tasks[cell.task]
    changes = cell.changes if isinstance(cell, Job) else {}
    try:
      config = self.config(dataclasses.replace(cell, seeds=(seed,)), changes)
    except Unsupported:
      config = shared
    job = {"purpose": cell.stage, "changes": dict(changes), "seeds": cell.seeds} if isinstance(cell, Job) else {}
    settings = configs.flatten(shared) | self.comparison.protocol.settings()
    return job | {
      "positive": cell.attention == self.comparison.protocol.positive,
      "command": provenance.command(cell.task.partition(":")[0], config),
      "schema": configs.SCHEMA,
      "config": configs.flatten(config),
      "config_digest": records.config_digest(settings),
      "commit": provenance.commit(),
      "versions": provenance.versions(),
      "device": provenance.device(),
    }

  def row(self, record: Mapping[str, Any], choice: Choice, space: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a tested seed but for its test metrics.

    Args:
      record: the journal's record of the seed.
      choice: how the setting of its row was chosen.
      space: the search space that the setting is from, as `search_space.as_row` writes it.
    """
    budget = self.budgets.get((record["task"], record["attention"]))
    protocol = self.comparison.protocol
    return {name: value for name, value in record.items() if name not in JOURNAL_FIELDS} | {
      "validation": record.get("metrics"),
      "budget": budget.as_row() if budget else None,
      "tuning": {
        "trials": protocol.trials,
        "chances": protocol.lr_retries,
        "space": space,
        "chosen": dict(choice.changes),
        "second": dict(choice.retry_means) or None,
        "before": choice.first_mean,
        "taken": choice.selected_lr,
      },
    }

  def clear(self, job: Job) -> None:
    """Removes the folder of a run whose rows are all written."""
    shutil.rmtree(self._workdir(job), ignore_errors=True)

  def _task(self, job: Job) -> tuple[tasks.Task, configs.Config]:
    config = self.config(job, job.changes)
    return self.build(job.task, config), config

  def _run(self, task: tasks.Task, config: configs.Config, job: Job, splits: tuple[str, ...]) -> list[dict[str, Any]]:
    return loop.run(
      task,
      config,
      self._workdir(job),
      mesh=self.mesh,
      seeds=job.seeds,
      experiment=task.name,
      log=lambda line: self._log(f"  {line}"),
      splits=splits,
    )

  def _workdir(self, job: Job) -> pathlib.Path:
    """The folder of a run, named after what it trains; one that was begun under an old spelling of its row goes on."""
    folders = []
    for attention in (job.attention, spec.respelled(job.attention, {new: old for old, new in spec.ALIASES.items()})):
      name = json.dumps([job.task, attention, sorted(job.changes.items()), list(job.seeds)])
      folders.append(self.folder / RUNS / hashlib.sha256(name.encode()).hexdigest()[:16])
    return next(filter(pathlib.Path.exists, folders), folders[0])
