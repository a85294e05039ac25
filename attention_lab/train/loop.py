"""The training loop: restore → for each step (prefetch, compiled step, late metrics) → evaluate → save → results.

`run` is the way in and `_train` the loop. The gradient of a step is computed in `step.make_step`, by
`jax.value_and_grad`.
"""

import contextlib
import dataclasses
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from attention_lab import compile_cache, compiled, threads
from attention_lab import mesh as meshes
from attention_lab.config import Config
from attention_lab.tasks.base import EvalResult, Task
from attention_lab.train import checkpoint, checks, cost, pretrained
from attention_lab.train import optimizer as optimizers
from attention_lab.train import state as states
from attention_lab.train import workdir as workdirs
from attention_lab.train.checkpoint import BestParams, Checkpoints, DataPositions
from attention_lab.train.diagnosis import Diagnosis
from attention_lab.train.evaluation import Evaluator, write_predictions
from attention_lab.train.metrics_writer import FILE, MetricsWriter
from attention_lab.train.prefetch import Prefetcher
from attention_lab.train.progress import Progress, number
from attention_lab.train.state import State, compiler_options, has_seed_axis
from attention_lab.train.step import LARGEST_STREAK, Batch, Diverged, Metrics, make_step

LogFn = Callable[[str], None]  # prints a whole line


@dataclasses.dataclass(frozen=True)
class RunSpec:
  """What is trained, on which devices, and where it is written."""

  task: Task
  config: Config
  mesh: Mesh
  seeds: tuple[int, ...]
  folder: pathlib.Path | None  # None: nothing is written
  log: LogFn
  splits: tuple[str, ...] = ("validation", "test")  # evaluated at the end


@dataclasses.dataclass(frozen=True)
class RunOutputs:
  """Where a run writes what it makes."""

  rows: MetricsWriter
  checkpoints: Checkpoints | None  # None: no checkpoint is kept
  best: BestParams | None  # None: the last parameters are tested


def run(
  task: Task,
  config: Config,
  workdir: str | pathlib.Path | None,
  *,
  mesh: Mesh,
  seeds: Sequence[int] | None = None,
  experiment: str = "",
  log: LogFn = print,
  initial: Callable[[], Any] | None = None,
  splits: Sequence[str] = ("validation", "test"),
) -> list[dict[str, Any]]:
  """Trains `task`, or goes on where the workdir's run was.

  It has nine arguments: task, config and workdir are what is run, the others how.

  Args:
    task: the model, its data and its metrics.
    config: the configuration of the run.
    workdir: the run's folder; None writes nothing.
    mesh: the devices.
    seeds: those of one program, trained side by side as their single runs would be; None = `config.seed` alone.
    experiment: the name that the folder's `config.json` holds; "" = the task's.
    log: prints a whole line; called in the first process only.
    initial: makes parameters that replace the fresh ones of the same path, shape and dtype (`pretrained.initial`); not
      called by a run that goes on.
    splits: those evaluated at the end, each once.

  Returns:
    One dict for each seed: seed; parameters (trainable); flops_per_token (of a training step, on the first shape of
    batch; None where a loop's length is unknown); compile_time (seconds); program (fingerprint of the lowered step);
    compiled_before (it was read from the compile cache); step_time (median, seconds) and peak_bytes (of one device),
    both one seed's share; threads and processor, on a CPU; skipped (steps with gradients that were not finite);
    selected (the step whose parameters were tested); metrics {split: {name: value}}; curve [[step, primary metric on
    validation], …].

  Raises:
    ValueError: what cannot be trained, in one line that names the flags.
    Diverged: gradients that were not finite in 5 steps in a row, or a state that is not finite (exit code 3).
    BrokenCheckpoint: the workdir has checkpoints and none can be restored (exit code 4).

  """
  seeds = (config.seed,) if seeds is None else tuple(seeds)
  config = dataclasses.replace(config, seed=seeds[0])
  checks.check(config, mesh, seeds)
  checks.check_source(task.source, config)
  spec = RunSpec(task, config, mesh, seeds, None, log if jax.process_index() == 0 else lambda _: None, tuple(splits))
  if workdir is None:
    return _train(spec, initial)
  folder = workdirs.claim(workdir, experiment or task.name, config, seeds)
  finished = workdirs.results(folder)
  if finished is not None and all(set(splits) <= set(result["metrics"]) for result in finished):
    message = f"this run has finished: its results are read from {folder / workdirs.FINAL}"
    spec.log(f"{message} (delete it to evaluate again)")
    return finished
  results = _train(dataclasses.replace(spec, folder=folder), initial)
  workdirs.finish(folder, results)
  return results


def _train(spec: RunSpec, initial: Callable[[], Any] | None) -> list[dict[str, Any]]:
  """A whole run: restore → for each step (train, evaluate, save) → results, one dict for each seed."""
  config, seeds, mesh = spec.config, spec.seeds, spec.mesh
  optimizer = optimizers.make_optimizer(config.optimizer, config.steps, spec.task.model.undecayed)
  with contextlib.ExitStack() as stack:
    checkpoints = _open_checkpoints(spec, checkpoint.FOLDER, stack)
    start, state, positions = _restore(spec, optimizer, checkpoints, initial)
    best = None
    if config.checkpoint.select == "best":
      best = BestParams(spec.task.higher_is_better, seeds, _open_checkpoints(spec, checkpoint.BEST, stack))
      best.restore(states.abstract_params(spec.task, seeds, mesh), spec.log)
    sharding = meshes.batch_sharding(mesh, has_seed_axis=has_seed_axis(spec.seeds))
    split = spec.task.source.splits["train"]
    batches = stack.enter_context(Prefetcher(split, config.batch, seeds, sharding, positions))
    rows = stack.enter_context(MetricsWriter(spec.folder, seeds, config.steps, start))
    trainer = Trainer(spec, start, state, batches, RunOutputs(rows, checkpoints, best))
    trainer.compile(optimizer)
    schedule = checkpoint.SaveSchedule(config)
    for step in range(start + 1, config.steps + 1):
      last = step == config.steps
      trainer.train(step)
      if not last and config.evaluate_every and step % config.evaluate_every == 0:
        trainer.evaluate(step)
      if schedule.due(step):
        trainer.save(step)
    return trainer.results()


def _open_checkpoints(spec: RunSpec, name: str, stack: contextlib.ExitStack) -> Checkpoints | None:
  """The checkpoints of the folder `name`; None where nothing is to be saved and nothing was."""
  folder, config = spec.folder, spec.config.checkpoint
  if folder is None or (not config.keep and not (folder / name).exists()):
    return None
  return stack.enter_context(Checkpoints(folder, config, name=name))


def _restore(
  spec: RunSpec,
  optimizer: optax.GradientTransformation,
  checkpoints: Checkpoints | None,
  initial: Callable[[], Any] | None,
) -> tuple[int, State, DataPositions | None]:
  """(step, state, positions of the data) of the newest checkpoint, or of step 0."""
  task, seeds, mesh = spec.task, spec.seeds, spec.mesh
  restored = None
  if checkpoints and checkpoints.latest() is not None:
    restored = checkpoints.restore(states.abstract_state(task, optimizer, seeds, mesh), spec.log)
  if restored is not None:
    spec.log(f"restored step {restored[0]} of {spec.config.steps} from {spec.folder}")
    return restored
  if spec.folder and (spec.folder / FILE).exists():
    spec.log(f"{spec.folder} has no checkpoint: training begins at step 0 and its metrics anew")
  state = states.init_state(task, optimizer, seeds, mesh)
  if initial is not None:
    params, message = pretrained.overlaid(state.params, initial(), has_seed_axis=has_seed_axis(spec.seeds))
    spec.log(message)
    state = state._replace(params=params)
  return 0, state, None


class Trainer:
  """The state of a run; metrics are fetched one step late, so that the devices always have a step to do."""

  def __init__(self, spec: RunSpec, start: int, state: State, batches: Prefetcher, outputs: RunOutputs):
    self._spec, self._start, self._state, self._batches, self._outputs = spec, start, state, batches, outputs
    self._evaluator = Evaluator(spec.task, spec.mesh, spec.config.batch, spec.seeds)
    self._diagnosis = Diagnosis(spec.seeds)
    self._pending: tuple[int, Metrics, int] | None = None  # step, metrics on the devices, tokens
    self._intervals: list[float] = []  # seconds between the ends of two steps with nothing between them
    self._flushed_at = 0.0  # clock at the end of the last step; 0 = something came between
    self._last_loss = math.nan  # newest loss that is finite, mean over seeds

  def compile(self, optimizer: optax.GradientTransformation) -> None:
    """Counts and compiles the step, and says so; a run that has all its steps is only counted."""
    spec, seeds = self._spec, len(self._spec.seeds)
    self._next = next(self._batches)
    batch = self._next[0]
    step = make_step(spec.task, optimizer, spec.config, spec.mesh, has_seed_axis=has_seed_axis(spec.seeds))
    self._step = CompiledStep(step, spec.mesh, seeds, self._say)
    tokens = self._tokens(batch)
    costs = self._step.count(self._state, batch, tokens)
    if self._start < spec.config.steps:
      spec.log("compiling the training step …")
      self._step.compile(self._state, batch)
    spec.log(cost.headline(costs, spec.mesh, seeds, tokens, spec.task.resolved_positions))
    self._progress = Progress(spec.config.steps, self._start, tokens, spec.log)

  def train(self, step: int) -> None:
    """One step on the batch that is ready; then the metrics of the step before it, and the next batch."""
    batch, self._positions = self._next
    self._state, metrics = self._step(self._state, batch)
    self._flush_metrics()
    self._pending = step, metrics, self._tokens(batch)
    if step < self._spec.config.steps:
      self._next = next(self._batches)

  def evaluate(self, step: int) -> None:
    """Metrics on the validation split and of the layers, and the choice of the best parameters."""
    self._flush_metrics()
    task, params, best = self._spec.task, self._state.params, self._outputs.best
    metrics = self._evaluator(params, task.source.splits["validation"])
    self._record(step, "validation", metrics)
    self._inspect(step)
    if best is not None:
      best.offer(step, params, [values[task.primary] for values in metrics])

  def save(self, step: int) -> None:
    """Starts to write a checkpoint, of the state and of where the data stand."""
    self._flush_metrics()
    self._outputs.rows.flush()
    if self._outputs.checkpoints:
      self._outputs.checkpoints.save(step, self._state, self._positions)
    self._flushed_at = 0.0

  def results(self) -> list[dict[str, Any]]:
    """Evaluates the selected parameters on validation, and for the one time on test; one dict for each seed."""
    self._progress.clear()
    spec, costs = self._spec, self._step.costs
    params, steps = self._select()
    evaluated = {split: self._evaluate_selected(params, split) for split in spec.splits}
    if spec.folder and spec.task.judge:
      write_predictions(spec.folder, spec.seeds, evaluated)
    skipped = np.atleast_1d(jax.device_get(self._state.skipped))
    costs.step_time = statistics.median(self._intervals) / len(spec.seeds) if self._intervals else None
    return [
      {
        "seed": seed,
        **dataclasses.asdict(costs),
        **threads.record(states.platform(spec.mesh)),
        "skipped": int(skipped[index]),
        "selected": steps[index],
        "metrics": {split: results[index].metrics for split, results in evaluated.items()},
        "curve": self._outputs.rows.curve(seed, spec.task.primary),
      }
      for index, seed in enumerate(spec.seeds)
    ]

  def _select(self) -> tuple[Any, Sequence[int]]:
    """The parameters that are tested, and the step they are from for each seed."""
    spec, best, last = self._spec, self._outputs.best, self._spec.config.steps
    if best is None:
      return self._state.params, [last] * len(spec.seeds)
    self.evaluate(last)
    at = f"step {best.steps[0]}" if len(best.steps) == 1 else f"steps {', '.join(map(str, best.steps))}"
    shown = "  ".join(map(number, best.values))
    self._say(f"best validation {spec.task.primary} {shown} at {at}: these parameters are tested")
    return best.params, best.steps

  def _evaluate_selected(self, params: Any, split: str) -> list[EvalResult]:
    """On validation the last row of the curve; the best parameters come after it, in a row of the split "best"."""
    last, of_best = self._spec.config.steps, self._outputs.best is not None and split == "validation"
    results = self._evaluator.judge(params, split)
    self._record(last, "best" if of_best else split, [result.metrics for result in results])
    if split == "validation" and not of_best:
      self._inspect(last)
    return results

  def _inspect(self, step: int) -> None:
    if scalars := self._evaluator.inspect(self._state.params):
      self._outputs.rows.write(step, "inspect", scalars)

  def _record(self, step: int, split: str, metrics: Sequence[dict[str, float]]) -> None:
    self._flush_metrics()
    self._outputs.rows.write(step, split, metrics)
    primary = self._spec.task.primary
    self._progress.evaluation(step, f"{split} {primary} {'  '.join(number(values[primary]) for values in metrics)}")
    self._flushed_at = 0.0

  def _flush_metrics(self) -> None:
    """Waits for the step before this one, records it, and stops a run that diverges."""
    if self._pending is None:
      return
    (step, metrics, tokens), self._pending = self._pending, None
    arrays = {name: np.atleast_1d(value) for name, value in jax.device_get(metrics).items()}
    now = time.perf_counter()
    if self._flushed_at:
      self._intervals.append(now - self._flushed_at)
    self._flushed_at = now
    streak = arrays.pop("streak")
    del arrays["finite"]
    rows = [{name: value[index].item() for name, value in arrays.items()} for index in range(len(streak))]
    if self._outputs.rows.write(step, "train", rows):
      for line in self._diagnosis.record(step, rows):
        self._say(line)
    loss = float(arrays["loss"].mean())
    self._last_loss = loss if math.isfinite(loss) else self._last_loss
    self._progress.update(step, loss, tokens)
    if streak.max() >= LARGEST_STREAK:
      seed, rate = self._spec.seeds[int(streak.argmax())], self._spec.config.optimizer.learning_rate
      before = (
        "no loss was finite" if math.isnan(self._last_loss) else f"the last finite loss was {self._last_loss:.4g}"
      )
      saved = self._outputs.checkpoints.describe() if self._outputs.checkpoints else checkpoint.NO_CHECKPOINT
      raise Diverged(
        f"training diverged at step {step}: the gradients of seed {seed} were not finite in {LARGEST_STREAK} steps in "
        f"a row, {before}; {saved}; lower "
        f"--config.optimizer.learning_rate={rate}, or lengthen --config.optimizer.warmup"
      )

  def _say(self, line: str) -> None:
    self._progress.say(line)

  def _tokens(self, batch: Batch) -> int:
    """Tokens of a batch, of all seeds together."""
    task, config = self._spec.task, self._spec.config
    tokens = cost.batch_tokens(batch, config, task.tokens_per_example, task.source.splits["train"])
    return tokens * len(self._spec.seeds)


class CompiledStep:
  """The training step, compiled ahead for every new shape of batch and never again; all but the first are logged.

  Bucketed data come in a few shapes. costs: FLOPs of the first shape, sum of compile times, largest peak bytes.
  """

  def __init__(self, step: Any, mesh: Mesh, seeds: int, log: LogFn):
    self._step, self._mesh, self._seeds, self._log = step, mesh, seeds, log
    self._programs: dict[tuple, Any] = {}
    self.costs = cost.Costs(0)

  def count(self, state: State, batch: Batch, tokens: int) -> cost.Costs:
    """Counts parameters, and the FLOPs of a step on this batch of `tokens`."""
    self.costs.parameters = optimizers.count(state.params) // self._seeds
    self.costs.flops_per_token = cost.flops_per_token(self._step, state, batch, tokens)
    return self.costs

  def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One training step, which donates `state`."""
    program = self._programs.get(_shapes(batch)) or self.compile(state, batch)
    return program(state, batch)

  def compile(self, state: State, batch: Batch) -> Any:
    """The program for this shape of batch."""
    begun = time.perf_counter()
    with compile_cache.watched() as traffic:
      lowered = self._step.lower(state, batch)
      program = lowered.compile(compiler_options=compiler_options(self._mesh))
    seconds, costs, known = time.perf_counter() - begun, self.costs, len(self._programs)
    costs.program = costs.program or compiled.fingerprint(lowered)
    costs.compile_time = (costs.compile_time or 0.0) + seconds
    costs.compiled_before = traffic.hits > 0 and (costs.compiled_before or not known)
    costs.peak_bytes = max(costs.peak_bytes or 0, cost.peak_bytes(program, self._mesh, self._seeds))
    self._programs[_shapes(batch)] = program
    if known:
      name = "tokens" if "tokens" in batch else max(batch, key=lambda name: batch[name].size)
      self._log(f"compiled for {name} {list(batch[name].shape)} in {seconds:.1f} s; {known + 1} programs")
    return program


def _shapes(batch: Batch) -> tuple:
  return tuple((name, array.shape) for name, array in batch.items())
