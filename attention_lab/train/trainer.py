"""The steps of a run, with what happens between them: evaluations, checkpoints, records."""

import dataclasses
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab.config import Config
from attention_lab.tasks.base import EvalResult, Task
from attention_lab.train import predictions
from attention_lab.train import state as states
from attention_lab.train.best import Best
from attention_lab.train.checkpoint import Checkpoints
from attention_lab.train.compiled_step import Programs, tokens_of
from attention_lab.train.cost import headline
from attention_lab.train.diagnosis import Diagnosis
from attention_lab.train.evaluation import Evaluator
from attention_lab.train.log import Log
from attention_lab.train.prefetch import Feed
from attention_lab.train.progress import Progress
from attention_lab.train.step import LARGEST_STREAK, Diverged, make_step


@dataclasses.dataclass(frozen=True)
class Setting:
  """What a run is given."""

  task: Task
  config: Config
  mesh: Mesh
  seeds: tuple[int, ...]
  folder: pathlib.Path | None  # None: nothing is written
  log: Callable[[str], None]  # gets whole lines
  splits: tuple[str, ...] = ("validation", "test")  # evaluated at the end


@dataclasses.dataclass(frozen=True)
class Keeping:
  """Where a run keeps what it makes; None where it does not."""

  rows: Log
  saves: Checkpoints | None
  best: Best | None


class Trainer:
  """A run from `start` to the end; metrics are fetched one step late, so that the devices always have a step to do."""

  def __init__(self, setting: Setting, start: int, state: states.State, feed: Feed, keeping: Keeping):
    self._setting, self._config, self._start, self._state = setting, setting.config, start, state
    self._feed, self._rows, self._saves, self._best = feed, keeping.rows, keeping.saves, keeping.best
    self._evaluator = Evaluator(setting.task, setting.mesh, setting.config.batch, setting.seeds)
    self._diagnosis = Diagnosis(setting.seeds)
    self._pending: tuple[int, Any, int] | None = None
    self._intervals: list[float] = []
    self._settled = 0.0

  def prepare(self, rule: Any) -> None:
    """Counts and compiles the step, and says so."""
    setting, seeds = self._setting, len(self._setting.seeds)
    self._next = next(self._feed)
    step = make_step(setting.task, rule, setting.config, setting.mesh, stacked=states.stacked(setting.seeds))
    self._step = Programs(step, setting.mesh, seeds, self._say)
    tokens = self._tokens(self._next[0])
    costs = self._step.prepare(self._state, self._next[0], tokens, compiled=self._start < self._config.steps)
    setting.log(headline(costs, setting.mesh, seeds, tokens, setting.task.positions))
    self._progress = Progress(self._config.steps, self._start, tokens, setting.log)

  def train(self) -> None:
    """All steps that are left, with the evaluations and checkpoints between them, and the last checkpoint."""
    config = self._config
    for step in range(self._start + 1, config.steps + 1):
      batch, positions = self._next
      self._state, metrics = self._step(self._state, batch)
      self._settle()
      self._pending = step, metrics, self._tokens(batch)
      last = step == config.steps
      self._next = self._next if last else next(self._feed)
      if not last and config.evaluate_every and step % config.evaluate_every == 0:
        self._validate(step)
      if last or (config.checkpoint.every and step % config.checkpoint.every == 0):
        self._save(step, positions)
    self._progress.clear()

  def results(self) -> list[dict[str, Any]]:
    """Evaluates on validation what is chosen, and for the one time on test; one dict for each seed."""
    setting, costs = self._setting, self._step.costs
    params, steps = self._chosen()
    judged = {split: self._judged(params, split) for split in setting.splits}
    if setting.folder and setting.task.judge:
      predictions.write(setting.folder, setting.seeds, judged)
    skipped = np.atleast_1d(jax.device_get(self._state.skipped))
    costs.step_time = statistics.median(self._intervals) / len(setting.seeds) if self._intervals else None
    return [
      {
        "seed": seed,
        **dataclasses.asdict(costs),
        "skipped": int(skipped[index]),
        "selected": steps[index],
        "metrics": {split: found[index].metrics for split, found in judged.items()},
        "curve": self._rows.curve(seed, setting.task.primary),
      }
      for index, seed in enumerate(setting.seeds)
    ]

  def _chosen(self) -> tuple[Any, Sequence[int]]:
    """The parameters that are tested, and the step they are from for each seed."""
    setting, last = self._setting, self._config.steps
    if self._best is None:
      return self._state.params, [last] * len(setting.seeds)
    self._validate(last)
    steps, values = self._best.steps, self._best.values
    at = f"step {steps[0]}" if len(steps) == 1 else f"steps {', '.join(map(str, steps))}"
    shown = "  ".join(f"{value:.4g}" for value in values)
    self._say(f"best validation {setting.task.primary} {shown} at {at}: these parameters are tested")
    return self._best.params, steps

  def _judged(self, params: Any, split: str) -> list[EvalResult]:
    """On validation the last row of the curve; where the best are judged after it, a row of the split "best"."""
    last, of_best = self._config.steps, self._best is not None and split == "validation"
    judged = self._evaluator.judge(params, split)
    self._record(last, "best" if of_best else split, [one.metrics for one in judged])
    if split == "validation" and not of_best:
      self._inspect(last)
    return judged

  def _validate(self, step: int) -> None:
    """The sums of the validation split, what layers look like, and the choice of the best."""
    self._settle()
    task, params = self._setting.task, self._state.params
    metrics = self._evaluator(params, task.source.splits["validation"])
    self._record(step, "validation", metrics)
    self._inspect(step)
    if self._best is not None:
      self._best.offer(step, params, [one[task.primary] for one in metrics])

  def _inspect(self, step: int) -> None:
    scalars = self._evaluator.inspect(self._state.params)
    if scalars:
      self._rows.write(step, "inspect", scalars)

  def _record(self, step: int, split: str, metrics: Sequence[dict[str, float]]) -> None:
    self._settle()
    self._rows.write(step, split, metrics)
    primary = self._setting.task.primary
    self._progress.evaluation(step, f"{split} {primary} {'  '.join(f'{one[primary]:.4g}' for one in metrics)}")
    self._settled = 0.0

  def _settle(self) -> None:
    """Waits for the step before this one, records it, and stops a run that diverges."""
    if self._pending is None:
      return
    (step, metrics, tokens), self._pending = self._pending, None
    metrics = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
    now = time.perf_counter()
    if self._settled:
      self._intervals.append(now - self._settled)
    self._settled = now
    streak = metrics.pop("streak")
    del metrics["finite"]
    rows = [{name: value[index].item() for name, value in metrics.items()} for index in range(len(streak))]
    if self._rows.write(step, "train", rows):
      for line in self._diagnosis.record(step, rows):
        self._say(line)
    self._progress.update(step, float(metrics["loss"].mean()), tokens)
    self._stop_if_diverged(step, streak)

  def _say(self, line: str) -> None:
    self._progress.say(line)

  def _stop_if_diverged(self, step: int, streak: np.ndarray) -> None:
    if streak.max() >= LARGEST_STREAK:
      seed = self._setting.seeds[int(streak.argmax())]
      raise Diverged(
        f"training diverged: the gradients of seed {seed} were not finite in {LARGEST_STREAK} steps in a row, up to "
        f"step {step}; lower --config.optimizer.learning_rate={self._config.optimizer.learning_rate}"
      )

  def _save(self, step: int, positions: list[dict[str, Any]]) -> None:
    self._settle()
    self._rows.flush()
    if self._saves:
      self._saves.save(step, self._state, positions)
    self._settled = 0.0

  def _tokens(self, batch: Any) -> int:
    task = self._setting.task
    one = tokens_of(batch, self._config, task.tokens_per_example, task.source.splits["train"])
    return one * len(self._setting.seeds)
