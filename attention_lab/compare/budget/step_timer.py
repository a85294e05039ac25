"""A timer of training steps, in rounds in which every step runs once, so that drift hits all alike."""

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab import timing
from attention_lab.compare.budget import model_stats
from attention_lab.config import Config
from attention_lab.data import pipeline
from attention_lab.tasks.base import Task
from attention_lab.timing import Sample
from attention_lab.train import optimizer
from attention_lab.train import state as states

ROUNDS = 9  # number of rounds of one measurement

Clock = Callable[[], float]


class RunningStep:
  """A compiled training step on its first batch; each call of `sample().run` is one step more."""

  def __init__(self, task: Task, config: Config, mesh: Mesh):
    training = model_stats.training_step(task, config, mesh)
    update = optimizer.make_optimizer(config.optimizer, config.steps)
    self._step = training.step.lower(training.state, training.batch).compile()
    self._state = states.init_state(task, update, (config.seed,), mesh)
    batch = next(pipeline.train_batches(task.source.splits["train"], config.batch, config.seed))
    self._batch = meshes.put(batch, meshes.batch_sharding(mesh))

  def sample(self) -> Sample:
    """The sample that a round times."""
    return Sample(self._run)

  def _run(self) -> Any:
    self._state, metrics = self._step(self._state, self._batch)
    return jax.block_until_ready((self._state, metrics))[1]


def seconds(step: Sample, count: int = ROUNDS, clock: Clock = time.perf_counter) -> float:
  """The median seconds of a step over `count` rounds."""
  return statistics.median(_times({"step": step}, count, clock)["step"])


def ratios(step: Sample, baseline: Sample, count: int = ROUNDS, clock: Clock = time.perf_counter) -> list[float]:
  """The seconds of `step` over those of `baseline`, for each of `count` rounds."""
  times = _times({"step": step, "baseline": baseline}, count, clock)
  return [ours / theirs for ours, theirs in zip(times["step"], times["baseline"], strict=True)]


def _times(samples: dict[str, Sample], count: int, clock: Clock) -> dict[str, list[float]]:
  timed = {name: timing.warm_up(sample, math.inf, clock) for name, sample in samples.items()}
  timing.interleave(samples, timed, count, math.inf, clock=clock)
  for name, result in timed.items():
    if result.problem:
      raise ValueError(f"the {name} could not be measured: {result.problem}")
  return {name: result.times for name, result in timed.items()}
