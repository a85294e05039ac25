"""Metrics of a whole split: sums over batches on the devices, added up on the host in double precision.

Where the task judges single predictions, they are made in the same pass, so that a split is read once; what they come
to is written to `errors.jsonl`, a row for each wrong prediction {"split", "index", "input", "label", "predicted",
"confidence"}, and to `tables.json`, a list of {"split", "tables": {name: table}}. With several seeds every row begins
with its "seed".
"""

import json
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.data import pipeline
from attention_lab.data.dataset import Split
from attention_lab.tasks.base import EvalResult, Task
from attention_lab.train import workdir as workdirs
from attention_lab.train.progress import number
from attention_lab.train.state import compiler_options, has_seed_axis, map_over_seeds, platform

Outputs = dict[str, np.ndarray]
ERRORS, TABLES = "errors.jsonl", "tables.json"
INSPECTED = 2  # examples on which layers are looked at


class Evaluator:
  """The evaluation of a task's parameters on its splits.

  One compiled program scores, one that also predicts judges, and one inspects, each for every shape of batch; a program
  that is not asked for is not compiled.

  Args:
    task: its `score`, `predict` and `inspect` are compiled.
    mesh: the devices.
    batch: examples of a batch, rounded up to what the mesh can split.
    seeds: those whose parameters are evaluated; several have a leading axis of seeds.
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
    return [result.metrics for result in self._evaluate(self._score, params, split, "")]

  def judge(self, params: Any, name: str) -> list[EvalResult]:
    """Metrics, tables and errors of the task's split `name`, from all its predictions; one result for each seed."""
    return self._evaluate(self._judge, params, self._task.source.splits[name], name)

  def inspect(self, params: Any) -> list[dict[str, float]]:
    """The task's scalars of layers on two validation examples, one dict a seed; none where the task has none."""
    if self._inspect is None:
      return []
    batch = next(iter(pipeline.evaluation_batches(self._task.source.splits["validation"], INSPECTED)))
    scalars = jax.device_get(self._inspect(params, meshes.put(batch, meshes.replicated(self._mesh))))
    return [{name: float(np.atleast_1d(value)[seed]) for name, value in scalars.items()} for seed in self._indices()]

  def _evaluate(self, program: Any, params: Any, split: Split, name: str) -> list[EvalResult]:
    """One result for each seed; `name` "" leaves the predictions out."""
    batches = pipeline.evaluation_batches(split, self._batch)
    fetched = _fetch((program(params, meshes.put(batch, self._sharding)), _examples(batch)) for batch in batches)
    outputs, examples = zip(*fetched, strict=True)
    parts = [sums for sums, _ in outputs]
    total = {key: np.sum([sums[key] for sums in parts], axis=0, dtype=np.float64) for key in parts[0]}
    results = []
    for seed in self._indices():
      metrics = self._task.summarize({key: float(np.atleast_1d(sums)[seed]) for key, sums in total.items()})
      result = EvalResult({})
      if name and self._task.judge:
        predictions = [_of_seed(predicted, seed, has_seed_axis(self._seeds)) for _, predicted in outputs]
        result = self._task.judge(_in_order(predictions, examples, len(split)), name)
      results.append(result._replace(metrics=metrics | result.metrics | metrics))
    return results

  def _indices(self) -> range:
    return range(len(self._seeds))

  def _program(self, function: Any) -> Any:
    """`function(params, batch)`, compiled, over the seeds' parameters, its outputs on every device."""

    def program(params: Any, batch: dict[str, jax.Array]) -> Any:
      mapped = map_over_seeds(lambda params: function(params, batch), has_seed_axis(self._seeds), platform(self._mesh))
      return jax.lax.with_sharding_constraint(mapped(params), meshes.replicated(self._mesh))

    return jax.jit(program, compiler_options=compiler_options(self._mesh))


def evaluate(task: Task, params: Any, split: Split, mesh: Mesh, batch: int) -> dict[str, float]:
  """The metrics of the task's sums of one model on every example of `split` once."""
  return Evaluator(task, mesh, batch)(params, split)[0]


def metrics_line(split: str, metrics: Mapping[str, float]) -> str:
  """The metrics of a split as a line: `test: accuracy 0.9917, loss 0.0312`."""
  return f"{split}: " + ", ".join(f"{name} {number(value, '.4f')}" for name, value in metrics.items())


def write_predictions(folder: pathlib.Path, seeds: Sequence[int], results: Mapping[str, Sequence[EvalResult]]) -> None:
  """Writes `errors.jsonl` and `tables.json` anew, from the results of each split, one for each seed; in process 0."""
  if jax.process_index():
    return
  errors, tables = [], []
  for split, of_seeds in results.items():
    for seed, result in zip(seeds, of_seeds, strict=True):
      start: dict[str, Any] = {"seed": seed, "split": split} if len(seeds) > 1 else {"split": split}
      errors += [json.dumps(start | row, ensure_ascii=False) + "\n" for row in result.errors]
      tables += [start | {"tables": result.tables}]
  workdirs.replace(folder / ERRORS, "".join(errors))
  workdirs.replace(folder / TABLES, json.dumps(tables, indent=2, ensure_ascii=False) + "\n")


def _fetch(outputs: Iterable[Any]) -> Iterator[Any]:
  """Each output on the host, one late, so that the devices always have a batch to do and hold the outputs of two."""
  before = None
  for output in outputs:
    if before is not None:
      yield jax.device_get(before)
    before = output
  yield jax.device_get(before)


def _examples(batch: Outputs) -> tuple[np.ndarray, np.ndarray]:
  """(which rows of a batch are no padding, their indices in the split)."""
  real = batch["weight"] > 0
  return real, batch["index"][real]


def _of_seed(outputs: Outputs, seed: int, has_seed_axis: bool) -> Outputs:
  return {name: value[seed] for name, value in outputs.items()} if has_seed_axis else outputs


def _in_order(outputs: Sequence[Outputs], examples: Sequence[tuple[np.ndarray, np.ndarray]], size: int) -> Outputs:
  """The outputs of all batches in the order of the split, without padding."""
  ordered = {name: np.empty((size, *array.shape[1:]), array.dtype) for name, array in outputs[0].items()}
  for part, (real, index) in zip(outputs, examples, strict=True):
    for name, array in part.items():
      ordered[name][index] = array[real]
  return ordered
