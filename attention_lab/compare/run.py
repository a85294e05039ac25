"""Runs the cells of a comparison: one program for all seeds of a variant on a task, one row for each seed."""

import copy
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.attention import Refused, spec
from attention_lab.compare import grid, ledger, provenance, report, rows
from attention_lab.tasks import base as tasks
from attention_lab.train import limits, loop

RESULTS = "results.jsonl"
POINTS = 10  # of a learning curve, unless --config.evaluate_every says otherwise


@dataclasses.dataclass(frozen=True)
class Comparison:
  """Named tasks with their settings, the variants, and how often each is run."""

  tasks: dict[str, configs.Config]  # by `BINARY` or `BINARY:DATASET`
  specs: tuple[str, ...]  # as `rows` reads them
  seeds: int

  def cells(self) -> list[grid.Cell]:
    """Every variant on every task."""
    settings = {name: provenance.settings(config) for name, config in self.tasks.items()}
    return grid.plan(settings, self.specs, range(self.seeds))

  def config(self, cell: grid.Cell, seed: int) -> configs.Config:
    """The configuration of one run."""
    config = copy.deepcopy(self.tasks[cell.task])
    rows.apply(config, cell.attention)
    config.seed = seed
    return config

  def stamp(self, cell: grid.Cell, seed: int) -> dict[str, Any]:
    """What holds of a run whether it succeeds or not."""
    shared = self.tasks[cell.task]
    try:
      config = self.config(cell, seed)
    except Refused:
      config = shared
    return {
      "command": provenance.command(cell.task.partition(":")[0], config),
      "config": configs.flatten(config),
      "config_digest": ledger.config_digest(configs.flatten(shared)),
      "commit": provenance.commit(),
      "versions": provenance.versions(),
      "device": provenance.device(),
    }


def plan(names: str, specs: str, seeds: int, steps: int, overrides: Sequence[str]) -> Comparison:
  """Reads the flags of a comparison; ValueError, in one line, for whatever does not exist or does not fit.

  names: `BINARY[:DATASET]`, separated by commas. steps: 0 = each task's own. overrides: words `--config.NAME=VALUE`.
  """
  if seeds < 1:
    raise ValueError(f"--seeds={seeds} must be at least 1")
  if steps < 0:
    raise ValueError(f"--steps={steps} must be at least 1, or 0 for each task's own number")
  wanted = tuple(map(rows.canonical, spec.rows(specs)))
  chosen: dict[str, configs.Config] = {}
  for name in filter(None, (part.strip() for part in names.split(","))):
    binary, _, dataset = name.partition(":")
    config = tasks.load(binary).Config()
    config.data.name = dataset or config.data.name
    config.steps = steps or config.steps
    for word in overrides:
      configs.override(config, word)
    config.evaluate_every = config.evaluate_every or max(1, config.steps // POINTS)
    chosen[name] = config
  if not chosen:
    raise ValueError("--task is empty: name at least one, as in --task=recall,image_classification:digits")
  return Comparison(chosen, wanted, seeds)


def execute(comparison: Comparison, workdir: str | os.PathLike[str], mesh: Mesh, log: Callable[[str], None]) -> int:
  """Runs what is not yet done, writes the report, and returns how many rows failed.

  Everything that can be refused for the whole comparison (data, sizes, mesh) is refused before anything is written.
  """
  cells = comparison.cells()
  for config in comparison.tasks.values():
    limits.check(config, mesh, range(comparison.seeds))
  library = tasks.Library()
  built = {(cell.task, cell.attention): _built(comparison, cell, mesh, library) for cell in cells}
  controls = _controls(built)
  folder = pathlib.Path(workdir)
  grid.register(folder, cells)
  held = ledger.read(folder / RESULTS)
  if held.damaged:
    log(f"{folder / RESULTS}: line {', '.join(map(str, held.damaged))} was cut short by a kill and does not count")
  wanted = grid.pending(cells, held.rows)
  if len(wanted) < len(cells):
    log(f"{len(cells) - len(wanted)} of {len(cells)} cells are done: going on with the others")

  def run_cell(cell: grid.Cell) -> Iterator[dict[str, Any]]:
    task = built[cell.task, cell.attention]
    if isinstance(task, Refused):
      raise task
    for row in _rows(task, comparison.config(cell, cell.seeds[0]), cell, mesh, log):
      yield row | {"controls": dict(controls[cell.task])}

  counts = grid.execute(wanted, folder / RESULTS, run_cell, log, stamp=comparison.stamp)
  report.write(folder)
  return counts["failed"]


def _built(comparison: Comparison, cell: grid.Cell, mesh: Mesh, library: tasks.Library) -> tasks.Task | Refused:
  """The task with the variant in it, or why the variant cannot do it."""
  try:
    return tasks.load(cell.task.partition(":")[0]).build(comparison.config(cell, cell.seeds[0]), "", mesh, library)
  except Refused as refusal:
    return refusal


def _controls(built: dict[tuple[str, str], tasks.Task | Refused]) -> dict[str, Mapping[str, float]]:
  """Reference lines by task: those of its first row, for all have the same data, and each takes time to compute."""
  found: dict[str, Mapping[str, float]] = {}
  for (name, _), task in built.items():
    if not isinstance(task, Refused):
      found.setdefault(name, task.source.controls)
  return found


def _rows(task: tasks.Task, config: configs.Config, cell: grid.Cell, mesh: Mesh, log: Callable) -> Iterator[dict]:
  results = loop.run(task, config, None, mesh=mesh, seeds=cell.seeds, log=lambda line: log(f"  {line}"))
  for seed, result in zip(cell.seeds, results, strict=True):
    splits = result.pop("metrics")
    yield {
      **result,
      "seed": seed,
      "metrics": splits["test"],
      "validation": splits["validation"],
      "primary": task.primary,
      "higher_is_better": task.higher_is_better,
      "chance": task.chance,
      "digests": dict(task.source.digests),
    }
