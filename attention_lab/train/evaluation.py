"""Metrics of a whole split: sums over batches on the devices, added up on the host in double precision.

Where the task judges single predictions, they are made in the same pass, so that a split is read once.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.data import pipeline
from attention_lab.data.dataset import Split
from attention_lab.tasks.base import EvalResult, Task
from attention_lab.train.state import compiler_options, lifted, platform, stacked

Outputs = dict[str, np.ndarray]
INSPECTED = 2  # examples


class Evaluator:
  """Evaluates parameters on splits; `batch` is rounded up to what the mesh can split.

  One compiled program scores, one that also predicts judges, and one inspects, each for every shape of batch; a program
  that is not asked for is not compiled.
  """

  def __init__(self, task: Task, mesh: Mesh, batch: int, seeds: Sequence[int] = (0,)):
    self._task, self._mesh, self._seeds = task, mesh, seeds
    parts = meshes.batch_parts(mesh)
    self._batch = -(-batch // parts) * parts
    self._sharding = meshes.batch_sharding(mesh)
    self._score = self._program(lambda params, batch: (task.score(params, batch), {}))
    self._judge = self._score
    if task.predict:
      self._judge = self._program(lambda params, batch: (task.score(params, batch), task.predict(params, batch)))
    self._inspect = self._program(task.inspect) if task.inspect else None

  def __call__(self, params: Any, split: Split) -> list[dict[str, float]]:
    """The metrics of the task's sums on every example of `split` once, one dict a seed."""
    return [judged.metrics for judged in self._evaluated(self._score, params, split, "")]

  def judge(self, params: Any, name: str) -> list[EvalResult]:
    """As a call on the task's own split `name`, with what the task says of all predictions; one for each seed."""
    return self._evaluated(self._judge, params, self._task.source.splits[name], name)

  def inspect(self, params: Any) -> list[dict[str, float]]:
    """The task's scalars of layers on two validation examples, one dict a seed; none where the task has none."""
    if self._inspect is None:
      return []
    batch = next(iter(pipeline.evaluation_batches(self._task.source.splits["validation"], INSPECTED)))
    scalars = jax.device_get(self._inspect(params, meshes.put(batch, meshes.replicated(self._mesh))))
    return [{name: float(np.atleast_1d(value)[seed]) for name, value in scalars.items()} for seed in self._each()]

  def _evaluated(self, program: Any, params: Any, split: Split, name: str) -> list[EvalResult]:
    """`name` "": without the task's judgement."""
    batches = pipeline.evaluation_batches(split, self._batch)
    done = _fetched((program(params, meshes.put(batch, self._sharding)), _places(batch)) for batch in batches)
    outputs, places = zip(*done, strict=True)
    total = _added([sums for sums, _ in outputs])
    found = []
    for seed in self._each():
      metrics = self._task.summarize({key: float(np.atleast_1d(sums)[seed]) for key, sums in total.items()})
      judged = EvalResult({})
      if name and self._task.judge:
        one = [_of_seed(predicted, seed, stacked(self._seeds)) for _, predicted in outputs]
        judged = self._task.judge(_in_order(one, places, len(split)), name)
      found.append(judged._replace(metrics=metrics | judged.metrics | metrics))
    return found

  def _each(self) -> range:
    return range(len(self._seeds))

  def _program(self, function: Any) -> Any:
    """`function(params, batch)`, compiled, over the seeds' parameters, its outputs on every device."""

    def program(params: Any, batch: dict[str, jax.Array]) -> Any:
      each = lifted(lambda params: function(params, batch), stacked(self._seeds), platform(self._mesh))
      return jax.lax.with_sharding_constraint(each(params), meshes.replicated(self._mesh))

    return jax.jit(program, compiler_options=compiler_options(self._mesh))


def evaluate(task: Task, params: Any, split: Split, mesh: Mesh, batch: int) -> dict[str, float]:
  """The metrics of the task's sums of one model on every example of `split` once."""
  return Evaluator(task, mesh, batch)(params, split)[0]


def _fetched(outputs: Iterable[Any]) -> Iterator[Any]:
  """Each on the host one late, so that the devices always have a batch to do and hold the outputs of two."""
  before = None
  for output in outputs:
    if before is not None:
      yield jax.device_get(before)
    before = output
  yield jax.device_get(before)


def _places(batch: Outputs) -> tuple[np.ndarray, np.ndarray]:
  """(which rows are examples, their places in the split)."""
  real = batch["weight"] > 0
  return real, batch["index"][real]


def _added(sums: Sequence[Outputs]) -> dict[str, Any]:
  return {name: np.sum([part[name] for part in sums], axis=0, dtype=np.float64) for name in sums[0]}


def _of_seed(outputs: Outputs, seed: int, is_stacked: bool) -> Outputs:
  return {name: value[seed] for name, value in outputs.items()} if is_stacked else outputs


def _in_order(outputs: Sequence[Outputs], places: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Outputs:
  """The outputs of all batches in the order of the split, without padding."""
  ordered = {name: np.empty((size, *array.shape[1:]), array.dtype) for name, array in outputs[0].items()}
  for part, (real, index) in zip(outputs, places, strict=True):
    for name, array in part.items():
      ordered[name][index] = array[real]
  return ordered
