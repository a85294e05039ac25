"""Reads the flags of a comparison, and does wave after wave until nothing is left."""

import dataclasses
import os
import shutil
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.attention import spec
from attention_lab.compare import report
from attention_lab.compare.execute import worker_pool
from attention_lab.compare.execute.comparison import ComparisonRun
from attention_lab.compare.execute.runner import RUNS
from attention_lab.compare.schedule import row_spec
from attention_lab.compare.schedule.protocol import Comparison, Protocol
from attention_lab.tasks import base as task_modules
from attention_lab.train import workdir as workdirs

POINTS = 10  # evaluations of a learning curve, unless --config.evaluate_every says otherwise


def plan(
  names: str,
  specs: str,
  steps: int,
  overrides: Sequence[str],
  protocol: Protocol,
  task_settings: Mapping[str, Sequence[str]] = {},
) -> Comparison:
  """Reads the flags of a comparison.

  Args:
    names: `BINARY[:DATASET]`, separated by commas.
    specs: rows, separated by semicolons.
    steps: of each run; 0 = each task's own.
    overrides: `--config.NAME=VALUE` for all tasks.
    protocol: what is done alike for every row.
    task_settings: `NAME=VALUE` of single tasks, over which `overrides` win.

  Raises:
    ValueError: in one line, for whatever does not exist or does not fit.
  """
  if steps < 0:
    raise ValueError(f"--steps={steps} must be at least 1, or 0 for each task's own number")
  rows = tuple(map(row_spec.canonical, spec.rows(specs)))
  positive = row_spec.canonical(protocol.positive) if protocol.positive else ""
  if positive and positive not in rows:
    raise ValueError(f"--positive={protocol.positive} is no row of --attention: give one of {'; '.join(rows)}")
  tasks: dict[str, configs.Config] = {}
  for name in filter(None, (part.strip() for part in names.split(","))):
    binary, _, dataset = name.partition(":")
    config = task_modules.load(binary).Config()
    config.data.name = dataset or config.data.name
    for flag in [*(f"--config.{setting}" for setting in task_settings.get(name, ())), *overrides]:
      configs.override(config, flag)
    config.steps = steps or config.steps
    config.evaluate_every = config.evaluate_every or max(1, config.steps // POINTS)
    tasks[name] = config
  if not tasks:
    raise ValueError("--task is empty: name at least one, as in --task=recall,image_classification:digits")
  _check_fields(rows, tasks)
  if any(getattr(config, "pretrained", "") for config in tasks.values()):
    raise ValueError("--config.pretrained: a comparison begins every row with fresh parameters; leave it out")
  return Comparison(tasks, rows, dataclasses.replace(protocol, positive=positive))


def _check_fields(rows: Sequence[str], tasks: Mapping[str, configs.Config]) -> None:
  """Raises ValueError for a row that changes a field which no task's model has, be it in this comparison or not."""
  fields = {field.name for config in tasks.values() for field in dataclasses.fields(config.model)}
  names = {row: row_spec.split(row)[1].keys() for row in rows}
  if any(changed - fields for changed in names.values()):
    others = [task_modules.load(name).Config() for name in task_modules.names()]
    fields |= {field.name for config in others for field in dataclasses.fields(config.model)}
  for row, changed in names.items():
    for name in changed - fields:
      raise ValueError(
        f"--attention: row '{row}' changes {name}, no field of config.model{configs.nearest_hint(name, fields)}"
      )


def execute(
  comparison: Comparison,
  workdir: str | os.PathLike[str],
  mesh: Mesh,
  log: Callable[[str], None],
  *,
  workers: int = 1,
  only: int = 0,
  collect: bool = False,
) -> int:
  """Runs what is not yet done and writes the report.

  Everything that can be refused for the whole comparison (data, sizes, mesh) is refused before anything is written.

  Args:
    comparison: what `plan` read.
    workdir: folder of grid, journal, results and report.
    mesh: of every run.
    log: gets whole lines.
    workers: processes on this machine that share the runs.
    only: the number of one cell, from 1, whose trials and seeds are run and kept in a journal of its own; 0 = all.
    collect: whether such journals are gathered and the comparison finished, training no cell they lack.

  Returns:
    How many rows failed.
  """
  if workers > 1 and mesh.devices.flat[0].platform != "cpu":
    raise ValueError(f"--workers={workers} shares the cores of a CPU: on other devices run one --cell on each")
  folder = workdirs.check_writable(workdir)
  if (folder / workdirs.CONFIG).exists():
    raise ValueError(f"--workdir={workdir} holds a training run; give another folder")
  with workdirs.locked(folder, f"cell_{only}" if only else ""):
    log("preparing data and models …")
    comparison_run = ComparisonRun(comparison, folder, mesh, log)
    cells = comparison_run.open(only)
    with worker_pool.WorkerPool(comparison_run.runner, workers) as pool:
      for name in comparison.tasks:
        chosen = [cell for cell in cells if cell.task == name]
        chosen = comparison_run.choose(name, chosen, pool, alone=bool(only), collect=collect)
        if not only:
          comparison_run.test(name, chosen, pool)
    if only:
      log("this cell is done: when all are, run the same command with --collect in place of --cell")
      return comparison_run.failed
    report.write(folder)
  if not comparison_run.failed:
    shutil.rmtree(folder / RUNS, ignore_errors=True)
  return comparison_run.failed
