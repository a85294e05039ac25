"""The life of a run: restore or begin, train, evaluate now and then, and give back its numbers."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.config import Config
from attention_lab.tasks.base import Task
from attention_lab.train import checkpoint, checks, optimizer, pretrained
from attention_lab.train import state as states
from attention_lab.train import workdir as workdirs
from attention_lab.train.best import Best
from attention_lab.train.checkpoint import Checkpoints
from attention_lab.train.log import FILE, Log
from attention_lab.train.prefetch import Feed
from attention_lab.train.trainer import Keeping, Setting, Trainer

Say = Callable[[str], None]


def run(
  task: Task,
  config: Config,
  workdir: str | pathlib.Path | None,
  *,
  mesh: Mesh,
  seeds: Sequence[int] | None = None,
  experiment: str = "",
  log: Say = print,
  initial: Callable[[], Any] | None = None,
  splits: Sequence[str] = ("validation", "test"),
) -> list[dict[str, Any]]:
  """Trains `task`, or goes on where the workdir's run was, and returns one dict of results for each seed.

  Nine arguments: task, config and workdir are what is run, the others how. workdir: None writes nothing.
  seeds: those of one program, trained side by side as their single runs would be (default: `config.seed`).
  log: gets whole lines. initial: makes parameters to begin with where the fresh ones have their path and shape
  (`pretrained.initial`); a run that goes on does not call it. splits: those evaluated at the end, each once.
  Results: seed, parameters, flops_per_token (of a training step, on the first shape of batch; None where a loop's
  length is unknown), compile_time in seconds, compiled_before (that was reading from the compile cache), step_time
  (median, seconds) and peak_bytes (of one device; both one seed's share), skipped (steps with gradients that were not
  finite), selected (the step whose parameters were tested), metrics {split: {…}}, curve [[step, primary metric on
  validation], …]. Raises ValueError for what cannot be trained, Diverged (exit code 3), BrokenCheckpoint (exit code 4).
  """
  seeds = (config.seed,) if seeds is None else tuple(seeds)
  config = dataclasses.replace(config, seed=seeds[0])
  checks.check(config, mesh, seeds)
  checks.check_source(task.source, config)
  setting = Setting(task, config, mesh, seeds, None, log if jax.process_index() == 0 else _say_nothing, tuple(splits))
  if workdir is None:
    return _train(setting, initial)
  folder = workdirs.claim(workdir, experiment or task.name, config, seeds)
  results = workdirs.results(folder)
  if results is not None and all(set(splits) <= set(one["metrics"]) for one in results):
    said = f"this run has finished: its results are read from {folder / workdirs.FINAL}"
    setting.log(f"{said} (delete it to evaluate again)")
    return results
  results = _train(dataclasses.replace(setting, folder=folder), initial)
  workdirs.finish(folder, results)
  return results


def _say_nothing(line: str) -> None:
  """What the processes but the first say."""


def _train(setting: Setting, initial: Callable[[], Any] | None) -> list[dict[str, Any]]:
  config, seeds, task = setting.config, setting.seeds, setting.task
  rule = optimizer.make_optimizer(config.optimizer, config.steps)
  with contextlib.ExitStack() as stack:
    saves = _checkpoints(setting, checkpoint.FOLDER, stack)
    start, state, positions = _begin(setting, rule, saves, initial)
    best = None
    if config.checkpoint.select == "best":
      best = Best(task.higher_is_better, seeds, _checkpoints(setting, checkpoint.BEST, stack))
      best.restore(states.abstract_params(task, seeds, setting.mesh), setting.log)
    sharding = meshes.batch_sharding(setting.mesh, stacked=states.stacked(seeds))
    feed = stack.enter_context(Feed(task.source.splits["train"], config.batch, seeds, sharding, positions))
    rows = stack.enter_context(Log(setting.folder, seeds, config.steps, start))
    trainer = Trainer(setting, start, state, feed, Keeping(rows, saves, best))
    trainer.prepare(rule)
    trainer.train()
    return trainer.results()


def _checkpoints(setting: Setting, name: str, stack: contextlib.ExitStack) -> Checkpoints | None:
  """None where nothing is to be saved and nothing was."""
  folder, config = setting.folder, setting.config.checkpoint
  if folder is None or (not config.keep and not (folder / name).exists()):
    return None
  return stack.enter_context(Checkpoints(folder, config, name=name))


def _begin(
  setting: Setting, rule: Any, saves: Checkpoints | None, initial: Callable[[], Any] | None
) -> tuple[int, states.State, list[dict] | None]:
  """(step, state, positions of the data) of the newest checkpoint, or of step 0."""
  task, seeds, mesh = setting.task, setting.seeds, setting.mesh
  if saves and saves.latest() is not None:
    step, state, positions = saves.restore(states.abstract_state(task, rule, seeds, mesh), setting.log)
    setting.log(f"restored step {step} of {setting.config.steps} from {setting.folder}")
    return step, state, positions
  if setting.folder and (setting.folder / FILE).exists():
    setting.log(f"{setting.folder} has no checkpoint: training begins at step 0 and its metrics anew")
  state = states.init_state(task, rule, seeds, mesh)
  if initial is not None:
    params, said = pretrained.overlaid(state.params, initial(), stacked=states.stacked(seeds))
    setting.log(said)
    state = state._replace(params=params)
  return 0, state, None
