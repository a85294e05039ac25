"""The life of a run: restore or begin, train, evaluate now and then, and give back its numbers."""

import contextlib
import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab import compile_cache
from attention_lab import mesh as meshes
from attention_lab.config import Config
from attention_lab.tasks.base import Task
from attention_lab.train import checkpoint, limits, optimizer
from attention_lab.train import state as states
from attention_lab.train import workdir as workdirs
from attention_lab.train.checkpoint import Checkpoints
from attention_lab.train.cost import Costs, flops_per_token, headline, peak_bytes
from attention_lab.train.evaluation import Evaluator
from attention_lab.train.feed import Feed
from attention_lab.train.log import FILE, Log
from attention_lab.train.progress import Progress
from attention_lab.train.step import LARGEST_STREAK, Diverged, make_step

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
) -> list[dict[str, Any]]:
  """Trains `task`, or goes on where the workdir's run was, and returns one dict of results for each seed.

  seeds: those of one program, trained side by side as their single runs would be (default: `config.seed`).
  workdir: None writes nothing. log: gets whole lines.
  Results: seed, parameters, flops_per_token (of a training step; None where a loop's length is unknown), compile_time
  in seconds, compiled_before (that was reading from the compile cache), step_time (median, seconds) and peak_bytes (of
  one device; both one seed's share), skipped (steps with gradients that were not finite), metrics {"validation",
  "test"}, curve [[step, primary metric on validation], …].
  Raises ValueError for what cannot be trained, Diverged (exit code 3), BrokenCheckpoint (exit code 4).
  """
  seeds = (config.seed,) if seeds is None else tuple(seeds)
  config = dataclasses.replace(config, seed=seeds[0])
  limits.check(config, mesh, seeds)
  log = log if jax.process_index() == 0 else _say_nothing
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


def _say_nothing(line: str) -> None:
  """What the processes but the first say."""


@dataclasses.dataclass(frozen=True)
class _Setting:
  task: Task
  config: Config
  mesh: Mesh
  seeds: tuple[int, ...]
  folder: pathlib.Path | None
  log: Say


def _train(setting: _Setting) -> list[dict[str, Any]]:
  config, seeds = setting.config, setting.seeds
  rule = optimizer.make_optimizer(config.optimizer, config.steps)
  with contextlib.ExitStack() as stack:
    saves = _checkpoints(setting)
    if saves:
      stack.enter_context(saves)
    start, state, positions = _begin(setting, rule, saves)
    sharding = meshes.batch_sharding(setting.mesh, stacked=states.stacked(seeds))
    feed = stack.enter_context(Feed(setting.task.source.splits["train"], config.batch, seeds, sharding, positions))
    rows = stack.enter_context(Log(setting.folder, seeds, config.steps, start))
    run = _Run(setting, start, state, feed, rows, saves)
    run.prepare(rule)
    run.train()
    return run.results()


def _checkpoints(setting: _Setting) -> Checkpoints | None:
  """None where nothing is to be saved and nothing was."""
  folder, config = setting.folder, setting.config.checkpoint
  if folder is None or (not config.keep and not (folder / checkpoint.FOLDER).exists()):
    return None
  return Checkpoints(folder, config)


def _begin(setting: _Setting, rule: Any, saves: Checkpoints | None) -> tuple[int, states.State, list[dict] | None]:
  """(step, state, positions of the data) of the newest checkpoint, or of step 0."""
  task, seeds, mesh = setting.task, setting.seeds, setting.mesh
  if saves and saves.latest() is not None:
    step, state, positions = saves.restore(states.abstract_state(task, rule, seeds, mesh), setting.log)
    setting.log(f"restored step {step} of {setting.config.steps} from {setting.folder}")
    return step, state, positions
  if setting.folder and (setting.folder / FILE).exists():
    setting.log(f"{setting.folder} has no checkpoint: training begins at step 0 and its metrics anew")
  return 0, states.init_state(task, rule, seeds, mesh), None


class _Run:
  """A run from `start` to the end; metrics are fetched one step late, so that the devices always have a step to do."""

  def __init__(
    self, setting: _Setting, start: int, state: states.State, feed: Feed, rows: Log, saves: Checkpoints | None
  ):
    self._setting, self._config, self._start, self._state = setting, setting.config, start, state
    self._feed, self._rows, self._saves = feed, rows, saves
    self._evaluator = Evaluator(setting.task, setting.mesh, setting.config.batch, setting.seeds)
    self._tokens = setting.config.batch * setting.task.tokens_per_example * len(setting.seeds)
    self._pending: tuple[int, Any] | None = None
    self._intervals: list[float] = []
    self._settled = 0.0

  def prepare(self, rule: Any) -> None:
    """Counts and compiles the step, and says so."""
    setting, stacked = self._setting, states.stacked(self._setting.seeds)
    self._next = next(self._feed)
    step = make_step(setting.task, rule, setting.config, setting.mesh, stacked=stacked)
    self._costs = Costs(optimizer.count(self._state.params) // len(setting.seeds))
    self._costs.flops_per_token = flops_per_token(step, self._state, self._next[0], self._tokens)
    if self._start < self._config.steps:
      begun = time.perf_counter()
      with compile_cache.watched() as traffic:
        self._step = step.lower(self._state, self._next[0]).compile()
      self._costs.compile_time = time.perf_counter() - begun
      self._costs.compiled_before = traffic.hits > 0
      self._costs.peak_bytes = peak_bytes(self._step, setting.mesh, len(setting.seeds))
    setting.log(headline(self._costs, setting.mesh, len(setting.seeds), self._tokens, setting.task.positions))
    self._progress = Progress(self._config.steps, self._start, self._tokens, setting.log)

  def train(self) -> None:
    """All steps that are left, with the evaluations and checkpoints between them, and the last checkpoint."""
    config = self._config
    for step in range(self._start + 1, config.steps + 1):
      batch, positions = self._next
      self._state, metrics = self._step(self._state, batch)
      self._settle()
      self._pending = step, metrics
      last = step == config.steps
      self._next = self._next if last else next(self._feed)
      if not last and config.evaluate_every and step % config.evaluate_every == 0:
        self._evaluate(step, "validation")
      if last or (config.checkpoint.every and step % config.checkpoint.every == 0):
        self._save(step, positions)
    self._progress.clear()

  def results(self) -> list[dict[str, Any]]:
    """Evaluates on validation, and for the one time on test."""
    setting, steps = self._setting, self._config.steps
    metrics = {split: self._evaluate(steps, split) for split in ("validation", "test")}
    skipped = np.atleast_1d(jax.device_get(self._state.skipped))
    self._costs.step_time = statistics.median(self._intervals) / len(setting.seeds) if self._intervals else None
    return [
      {
        "seed": seed,
        **dataclasses.asdict(self._costs),
        "skipped": int(skipped[index]),
        "metrics": {split: found[index] for split, found in metrics.items()},
        "curve": self._rows.curve(seed, setting.task.primary),
      }
      for index, seed in enumerate(setting.seeds)
    ]

  def _settle(self) -> None:
    """Waits for the step before this one, records it, and stops a run that diverges."""
    if self._pending is None:
      return
    (step, metrics), self._pending = self._pending, None
    metrics = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
    now = time.perf_counter()
    if self._settled:
      self._intervals.append(now - self._settled)
    self._settled = now
    streak = metrics.pop("streak")
    del metrics["finite"]
    rows = [{name: value[index].item() for name, value in metrics.items()} for index in range(len(streak))]
    self._rows.write(step, "train", rows)
    self._progress.update(step, float(metrics["loss"].mean()))
    if streak.max() >= LARGEST_STREAK:
      seed = self._setting.seeds[int(streak.argmax())]
      raise Diverged(
        f"training diverged: the gradients of seed {seed} were not finite in {LARGEST_STREAK} steps in a row, up to "
        f"step {step}; lower --config.optimizer.learning_rate={self._config.optimizer.learning_rate}"
      )

  def _evaluate(self, step: int, split: str) -> list[dict[str, float]]:
    self._settle()
    task = self._setting.task
    metrics = self._evaluator(self._state.params, task.source.splits[split])
    self._rows.write(step, split, metrics)
    shown = "  ".join(f"{one[task.primary]:.4g}" for one in metrics)
    self._progress.evaluation(step, f"{split} {task.primary} {shown}")
    self._settled = 0.0
    return metrics

  def _save(self, step: int, positions: list[dict[str, Any]]) -> None:
    self._settle()
    self._rows.flush()
    if self._saves:
      self._saves.save(step, self._state, positions)
    self._settled = 0.0
