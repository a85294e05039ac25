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
from attention_lab.compare.schedule.protocol import Protocol
from attention_lab.compare.schedule.scheduler import Choice, Job
from attention_lab.results import provenance, records
from attention_lab.tasks import base as tasks
from attention_lab.train import loop

RUNS = "runs"


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Named tasks with their settings, the variants, and the rules that hold for all."""

  tasks: dict[str, configs.Config]  # by `BINARY` or `BINARY:DATASET`
  specs: tuple[str, ...]  # as `rows` reads them
  rules: Protocol = Protocol()

  def places(self) -> list[tuple[str, str]]:
    """(task, row) of every cell, in the order of their numbers."""
    return [(name, row) for name in self.tasks for row in self.specs]

  def settings(self, name: str) -> dict[str, Any]:
    """What all rows of a task share, flat."""
    return provenance.settings(self.tasks[name]) | self.rules.settings()


class JobRunner:
  """Builds tasks, reading each source once, and runs jobs; `budgets` are by (task, row)."""

  def __init__(self, comparison: Comparison, folder: pathlib.Path, mesh: Mesh, log: Callable[[str], None]):
    self.comparison, self.folder, self.mesh, self._log = comparison, folder, mesh, log
    self.budgets: dict[tuple[str, str], Budget] = {}
    self._library = tasks.SourceCache()

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
    """The task named `name` with the variant of `config` in it, whose layers are not inspected: no row shows that.

    Unsupported where it cannot be.
    """
    task = tasks.load(name.partition(":")[0]).build(config, "", self.mesh, self._library)
    return dataclasses.replace(task, inspect=None)

  def train(self, job: Job, *, tested: bool = False) -> Iterator[dict[str, Any]]:
    """One journal line a seed, judged on validation; with `tested` also on test, where nothing is left to choose."""
    config = self.config(job, job.changes)
    task = self.build(job.task, config)
    splits = ("validation", "test") if tested else ("validation",)
    begun = time.perf_counter()
    results = self._run(task, config, job, splits)
    spent = (time.perf_counter() - begun) / len(job.seeds)
    own = self.about(task, config)
    for seed, result in zip(job.seeds, results, strict=True):
      metrics = result.pop("metrics")
      yield {
        **result,
        **own,
        "seed": seed,
        "metrics": metrics["validation"],
        "wall_time": spent,
        "sealed": metrics["test"] if tested else None,
      }

  def test(self, job: Job) -> Iterator[dict[str, Any]]:
    """Seed and test metrics of a run that was trained with this job's seeds."""
    config = self.config(job, job.changes)
    task = self.build(job.task, config)
    results = self._run(task, config, job, ("validation", "test"))
    metric = {"primary": task.primary, "higher_is_better": task.higher_is_better}
    for seed, result in zip(job.seeds, results, strict=True):
      yield metric | {"seed": seed, "metrics": result["metrics"]["test"]}

  def about(self, task: tasks.Task, config: configs.Config) -> dict[str, Any]:
    """What holds of a row's task and model, whatever they learn."""
    return {
      "primary": task.primary,
      "higher_is_better": task.higher_is_better,
      "chance": task.chance,
      "digests": dict(task.source.digests),
      "state_bytes": model_stats.state_bytes(task),
      "receptive_field": model_stats.receptive_field(task, getattr(config.data, "prefix", 0)),
    }

  def stamp(self, cell: grid.Cell, seed: int) -> dict[str, Any]:
    """What holds of a run whether it succeeds or not."""
    shared = self.comparison.tasks[cell.task]
    changes = cell.changes if isinstance(cell, Job) else {}
    try:
      config = self.config(dataclasses.replace(cell, seeds=(seed,)), changes)
    except Unsupported:
      config = shared
    own = {"purpose": cell.purpose, "changes": dict(changes), "seeds": cell.seeds} if isinstance(cell, Job) else {}
    settings = configs.flatten(shared) | self.comparison.rules.settings()
    return own | {
      "positive": cell.attention == self.comparison.rules.positive,
      "command": provenance.command(cell.task.partition(":")[0], config),
      "config": configs.flatten(config),
      "config_digest": records.config_digest(settings),
      "commit": provenance.commit(),
      "versions": provenance.versions(),
      "device": provenance.device(),
    }

  def clear(self, job: Job) -> None:
    """Removes the folder of a run whose rows are all written."""
    shutil.rmtree(self._place(job), ignore_errors=True)

  def row(self, line: Mapping[str, Any], choice: Choice, drawn: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a tested seed but for its test metrics, from its journal line and how its setting was chosen."""
    budget = self.budgets.get((line["task"], line["attention"]))
    rules = self.comparison.rules
    tuning = {"trials": rules.trials, "chances": rules.chances, "space": drawn, "chosen": dict(choice.changes)}
    kept = {name: value for name, value in line.items() if name not in ("purpose", "changes", "seeds", "sealed")}
    return kept | {
      "validation": line.get("metrics"),
      "budget": budget.as_row() if budget else None,
      "tuning": tuning | {"second": dict(choice.second) or None, "before": choice.before, "taken": choice.taken},
    }

  def _run(self, task: tasks.Task, config: configs.Config, job: Job, splits: tuple[str, ...]) -> list[dict[str, Any]]:
    words = {"mesh": self.mesh, "seeds": job.seeds, "experiment": task.name, "splits": splits}
    return loop.run(task, config, self._place(job), log=lambda line: self._log(f"  {line}"), **words)

  def _place(self, job: Job) -> pathlib.Path:
    """The folder of a run, by what it trains; one that was begun under an old spelling of its variants goes on."""
    folders = []
    for attention in (job.attention, spec.respelled(job.attention, {new: old for old, new in spec.ALIASES.items()})):
      what = [job.task, attention, sorted(job.changes.items()), list(job.seeds)]
      folders.append(self.folder / RUNS / hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16])
    return next(filter(pathlib.Path.exists, folders), folders[0])
