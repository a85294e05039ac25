"""Reads the flags of a comparison, and does wave after wave until nothing is left."""

import dataclasses
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab.attention import spec
from attention_lab.compare import report
from attention_lab.compare.execute import worker_pool
from attention_lab.compare.execute.comparison import Session
from attention_lab.compare.execute.runner import RUNS, Comparison
from attention_lab.compare.schedule import row_spec
from attention_lab.compare.schedule.protocol import Protocol
from attention_lab.tasks import base as tasks

POINTS = 10  # of a learning curve, unless --config.evaluate_every says otherwise


def plan(
  names: str, specs: str, steps: int, overrides: Sequence[str], rules: Protocol, own: Mapping[str, Sequence[str]] = {}
) -> Comparison:
  """Reads the flags of a comparison; ValueError, in one line, for whatever does not exist or does not fit.

  names: `BINARY[:DATASET]`, separated by commas. steps: 0 = each task's own. overrides: words `--config.NAME=VALUE` for
  all tasks. own: words `NAME=VALUE` of single tasks, which go behind what is given for all.
  """
  if steps < 0:
    raise ValueError(f"--steps={steps} must be at least 1, or 0 for each task's own number")
  wanted = tuple(map(row_spec.canonical, spec.rows(specs)))
  positive = row_spec.canonical(rules.positive) if rules.positive else ""
  if positive and positive not in wanted:
    raise ValueError(f"--positive={rules.positive} is no row of --attention: give one of {'; '.join(wanted)}")
  chosen: dict[str, configs.Config] = {}
  for name in filter(None, (part.strip() for part in names.split(","))):
    binary, _, dataset = name.partition(":")
    config = tasks.load(binary).Config()
    config.data.name = dataset or config.data.name
    for word in [*(f"--config.{word}" for word in own.get(name, ())), *overrides]:
      configs.override(config, word)
    config.steps = steps or config.steps
    config.evaluate_every = config.evaluate_every or max(1, config.steps // POINTS)
    chosen[name] = config
  if not chosen:
    raise ValueError("--task is empty: name at least one, as in --task=recall,image_classification:digits")
  return Comparison(chosen, wanted, dataclasses.replace(rules, positive=positive))


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
  """Runs what is not yet done, writes the report, and returns how many rows failed.

  workers: processes on this machine that share the runs. only: the number of one cell, from 1, whose trials and seeds
  are run and kept in a journal of its own. collect: gathers such journals and finishes, training no cell they lack.
  Everything that can be refused for the whole comparison (data, sizes, mesh) is refused before anything is written.
  """
  if workers > 1 and mesh.devices.flat[0].platform != "cpu":
    raise ValueError(f"--workers={workers} shares the cores of a CPU: on other devices run one --cell on each")
  folder = pathlib.Path(workdir)
  session = Session(comparison, folder, mesh, log)
  cells = session.open(only)
  with worker_pool.WorkerPool(session.office, workers) as hands:
    for name in comparison.tasks:
      own = [cell for cell in cells if cell.task == name]
      own = session.choose(name, own, hands, alone=bool(only), collect=collect)
      if not only:
        session.test(name, own, hands)
  if only:
    log("this cell is done: when all are, run the same command with --collect in place of --cell")
    return session.failed
  report.write(folder)
  if not session.failed:
    shutil.rmtree(folder / RUNS, ignore_errors=True)
  return session.failed
