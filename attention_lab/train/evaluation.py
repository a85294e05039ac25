"""Metrics of a whole split: sums over batches on the devices, added up on the host in double precision."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.data import pipeline
from attention_lab.data.source import Split
from attention_lab.tasks.base import Task
from attention_lab.train.state import lifted, platform, stacked


class Evaluator:
  """Evaluates parameters on splits by one compiled program; `batch` is rounded up to what the mesh can split."""

  def __init__(self, task: Task, mesh: Mesh, batch: int, seeds: Sequence[int] = (0,)):
    self._task = task
    parts = meshes.batch_parts(mesh)
    self._batch = -(-batch // parts) * parts
    self._sharding = meshes.batch_sharding(mesh)

    def score(params: Any, batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
      sums = lifted(lambda params: task.score(params, batch), stacked(seeds), platform(mesh))(params)
      return jax.lax.with_sharding_constraint(sums, meshes.replicated(mesh))

    self._score = jax.jit(score)

  def __call__(self, params: Any, split: Split) -> list[dict[str, float]]:
    """The task's metrics on every example of `split` once, one dict a seed."""
    batches = pipeline.evaluation_batches(split, self._batch)
    sums = jax.device_get([self._score(params, meshes.put(batch, self._sharding)) for batch in batches])
    totals = {name: np.sum([np.atleast_1d(part[name]) for part in sums], axis=0, dtype=np.float64) for name in sums[0]}
    seeds = range(len(next(iter(totals.values()))))
    return [self._task.summarize({name: float(total[seed]) for name, total in totals.items()}) for seed in seeds]


def evaluate(task: Task, params: Any, split: Split, mesh: Mesh, batch: int) -> dict[str, float]:
  """The task's metrics of one model on every example of `split` once."""
  return Evaluator(task, mesh, batch)(params, split)[0]
