"""The interface of a task; each file of this package defines NAME, Config and `build(config, workdir, mesh, read)`."""

import dataclasses
import importlib
import pkgutil
import types
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab import tasks
from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Unsupported
from attention_lab.attention.families.gridded import OnGrid
from attention_lab.attention.head_mixture import single_variants
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig, nearest_hint
from attention_lab.data.dataset import Dataset
from attention_lab.models import config_checks
from attention_lab.models.functional import Functional, Params
from attention_lab.models.layers import Output
from attention_lab.models.position_specs import check_widths, resolve, to_string

Batch = Mapping[str, Array]
LoadFn = Callable[..., Dataset]  # (load, *arguments) -> the dataset that `load(*arguments)` reads


class EvalResult(NamedTuple):
  """The metrics, tables and errors of a whole split's predictions."""

  metrics: dict[str, float]  # beside those of `Task.summarize`, which stand where both have a name
  tables: dict[str, Any] = {}  # JSON: a confusion matrix, precision and recall by class, …
  errors: list[dict[str, Any]] = []  # JSON rows {"index", "input", "label", "predicted", "confidence"}: the wrong ones


@dataclasses.dataclass(frozen=True)
class Task:
  """A model, its data, and the numbers that it is trained and judged by.

  `predict` and `judge` come together: outputs of every example of a split (leading axis B, the other axes the same in
  all batches), put back in the order of the split, are judged at the end of a run. `primary` is one of `summarize`'s
  metrics, so that evaluations during training need no predictions.
  """

  name: str
  source: Dataset
  model: Functional
  loss: Callable[
    [Params, Batch, PRNGKeyArray | None], tuple[Array, dict[str, Array]]
  ]  # mean training loss, scalars to log
  score: Callable[[Params, Batch], dict[str, Array]]  # sums over the batch, honouring its "weight"
  summarize: Callable[[Mapping[str, float]], dict[str, float]]  # total sums -> metrics
  primary: str  # the metric that is compared
  higher_is_better: bool
  tokens_per_example: int
  chance: float | None  # of the primary metric, from guessing
  resolved_positions: str  # the position encodings that `--config.model.positions` stands for, as a spec
  predict: Callable[[Params, Batch], dict[str, Array]] | None = None  # outputs of each example, as `judge` reads them
  judge: Callable[[Mapping[str, np.ndarray], str], EvalResult] | None = None  # all predictions of a split, and its name
  inspect: Callable[[Params, Batch], dict[str, Array]] | None = None  # scalars of layers on a small batch, to be logged
  # A whole batch with what `loss` draws and counts over all its examples, to be cut into micro-batches, the mean of
  # whose losses is then the loss of the batch; None where the loss is a mean over examples.
  prepare: Callable[[Batch, PRNGKeyArray | None], Batch] | None = None
  layout: tuple[tuple[int, int], int] | None = None  # rows and columns of an image's patches, and tokens before them

  def __post_init__(self):
    if (self.predict is None) != (self.judge is None):
      raise ValueError(f"task {self.name}: predict and judge come together, and one of them is missing")


def read(load: Callable[..., Dataset], *args: Any, **kwargs: Any) -> Dataset:
  """The dataset that `load` reads; a task reads its data so, unless it is given a `SourceCache`."""
  return load(*args, **kwargs)


class SourceCache:
  """Each source, read once and shared by the rows of a comparison; takes the place of `read`."""

  def __init__(self) -> None:
    self._datasets: dict[str, Dataset] = {}

  def __call__(self, load: Callable[..., Dataset], *args: Any, **kwargs: Any) -> Dataset:
    """The dataset that `load` reads for these arguments, which are told apart by how they are printed."""
    key = f"{load.__module__}.{load.__qualname__}{args}{sorted(kwargs.items())}"
    if key not in self._datasets:
      self._datasets[key] = load(*args, **kwargs)
    return self._datasets[key]


def names() -> tuple[str, ...]:
  """The tasks, by file name."""
  modules = pkgutil.iter_modules(tasks.__path__)
  return tuple(sorted(module.name for module in modules if module.name != "base" and not module.ispkg))


def load(name: str) -> types.ModuleType:
  """The module of a task. Raises ValueError for an unknown name, offering the nearest."""
  if name not in names():
    raise ValueError(f"unknown task '{name}'{nearest_hint(name, names())}; choices: {', '.join(names())}")
  return importlib.import_module(f"{tasks.__name__}.{name}")


def check(config: ModelConfig, task: str, *, causal: bool, grid: bool = False) -> str:
  """The spec of the model's position encodings; refuses a model that the task cannot use, before any data is read.

  Raises ValueError for sizes that do not fit, Unsupported for a variant that reads in the wrong directions, and without
  `grid` for one that needs a grid.
  """
  dims = config_checks.dims(config, max_len=1)
  config_checks.dtype(config)
  config_checks.remat(config)
  variants = config_checks.variants(config)
  for variant in dict.fromkeys(variants):
    claims, name = variant.claims(), spec.to_string(variant)
    if causal and "causal" not in claims.masks:
      fix = "take it on image_classification, or a causal variant such as softmax here"
      raise Unsupported(f"{name} is not causal, and {task} predicts each token from those before it: {fix}")
    if claims.requires_causal and not causal:
      fix = "take it on language_modeling, or a variant such as softmax here"
      raise Unsupported(f"{name} is causal by construction, and {task} reads in both directions: {fix}")
    if not grid:
      _check_grid(variant, task)
    jax.eval_shape(lambda key, variant=variant: variant.init(key, dims), jax.random.key(0))
  positions = resolve(config.positions, variants, grid)
  check_widths(positions, dims)
  return to_string(positions)


def _check_grid(variant: Attention, task: str) -> None:
  for part in single_variants(variant):
    if isinstance(part, OnGrid) and part.sizes(Positions()) is None:
      fix = f"set its field '{part.field}', or take it on image_classification"
      raise Unsupported(f"{spec.to_string(part)} needs a grid, and {task} has sequences: {fix}")


def with_target_rate(batch: Batch, counted: Float[Array, "B *T"]) -> Batch:
  """A whole batch with the number of its targets per example, which `target_count` reads in its micro-batches.

  Args:
    batch: the arrays, examples first.
    counted: 1 on the targets, 0 elsewhere.

  Returns:
    The batch with target_rate float32 [B], the same number everywhere; for a batch without a target that of one.
  """
  size = len(counted)
  return {**batch, "target_rate": jnp.full((size,), jnp.maximum(jnp.sum(counted), 1.0) / size)}


def target_count(batch: Batch, counted: Float[Array, "B *T"]) -> Float[Array, ""]:
  """The divisor of a sum over the targets: their number, 1 for none.

  In a micro-batch it is the mean number of the micro-batches of its whole batch, so that the mean of the quotients is
  the mean over the targets of the batch.
  """
  if "target_rate" in batch:
    return jnp.max(batch["target_rate"]) * len(counted)
  return jnp.maximum(jnp.sum(counted), 1.0)


def total_loss(mean: Array, output: Output) -> tuple[Array, dict[str, Array]]:
  """The training loss: the task's own plus the variants' auxiliary losses; with the scalars to log."""
  return sum(output.losses.values(), mean), {"loss": mean} | output.losses | output.stats
