"""The life of a run: restore or begin, train, evaluate now and then, and give back its numbers."""

import contextlib
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab import compiled as programs
from attention_lab import mesh as meshes
from attention_lab.config import Config
from attention_lab.train import checkpoint, limits, optimizer, workdir as workdirs
from attention_lab.train import state as states
from attention_lab.train.evaluation import Evaluator
from attention_lab.train.feed import Feed
from attention_lab.train.log import Log
from attention_lab.train.progress import Progress
from attention_lab.train.step import LARGEST_STREAK, Diverged, make_step

if TYPE_CHECKING:
  from attention_lab.tasks.base import Task

Say = Callable[[str], None]


def run(
  task: "Task",
  config: Config,
  workdir: str | pathlib.Path | None,
  *,
  mesh: Mesh,
  seeds: Sequence[int] | None = None,
  experiment: str = "",
  log: Say = print,
) -> list[dict[str, Any]]:
  """Trains `task`, or goes on where the workdir's run was, and returns one dict of results for each seed.

  seeds: those of one program, trained side by side as their single runs would be (default: `config.seed`).
  workdir: None writes nothing. log: gets whole lines.
  Results: seed, parameters, flops_per_token (of a training step; None where a loop's length is unknown), compile_time in
  seconds, step_time (median, seconds) and peak_bytes (both one seed's share), skipped (steps with gradients that were not
  finite), metrics {"validation", "test"}, curve [[step, primary metric on validation], …].
  Raises ValueError for what cannot be trained, Diverged (exit code 3), BrokenCheckpoint (exit code 4).
  """
  seeds = (config.seed,) if seeds is None else tuple(seeds)
  config = dataclasses.replace(config, seed=seeds[0])
  limits.check(config, mesh, seeds)
  if workdir is None:
    return _train(_Setting(task, config, mesh, seeds, None, log))
  folder = workdirs.claim(workdir, experiment or task.name, config, seeds)
  results = workdirs.results(folder)
  if results is not None:
    log(f"this run has finished: its results are read from {folder / workdirs.FINAL} (delete it to evaluate again)")
    return results
  results = _train(_Setting(task, config, mesh, seeds, folder, log))
  workdirs.finish(folder, results)
  return results


@dataclasses.dataclass(frozen=True)
class _Setting:
  task: "Task"
  config: Config
  mesh: Mesh
  seeds: tuple[int, ...]
  folder: pathlib.Path | None
  log: Say


def _train(setting: _Setting) -> list[dict[str, Any]]:
  config, task, seeds = setting.config, setting.task, setting.seeds
  rule = optimizer.make_optimizer(config.optimizer, config.steps)
  with contextlib.ExitStack() as stack:
    saves = stack.enter_context(_checkpoints(setting))
    state, positions = _begin(setting, rule, saves)
    start = positions[0]["next_index"] if positions else 0
    sharding = meshes.batch_sharding(setting.mesh, stacked=states.stacked(seeds))
    feed = stack.enter_context(Feed(task.source.splits["train"], config.batch, seeds, sharding, positions))
    rows = stack.enter_context(Log(setting.folder, seeds, config.steps, start))
    return _Run(setting, rule, state, start, feed, rows, saves).to_the_end()
