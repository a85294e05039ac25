"""Tasks that name the class of a sequence of tokens: which model, what it may read, batches by length.

Batches: tokens int32 [B, T], length int32 [B] (those that are valid), label int32 [B], optional types int32 [B, T].
Of whole sentences, tokens int32 [B, T, W], and T counts sentences.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import buckets, example_hashes, folds
from attention_lab.data.dataset import Dataset, Split, digest
from attention_lab.data.labelled import Reading
from attention_lab.models import classifier, inspection
from attention_lab.models.classifier import MASKS, ClassifierConfig
from attention_lab.models.functional import functional
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, Task, check
from attention_lab.tasks.parts import classification

ConfigT = TypeVar("ConfigT", bound=ClassifierConfig)


@dataclasses.dataclass
class ModelConfig(ClassifierConfig):
  heads: int = 4  # N, query heads
  dropout: float = 0.1  # rate in [0, 1), on embeddings and on both residual branches


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  length: int = 128  # T, tokens per example; longer ones are cut, and counted
  tokenizer: str = "wordpiece"  # byte, char, word, bpe or wordpiece, trained on the train split
  vocabulary: int = 8000  # ids of the tokenizer, at most
  buckets: bool = True  # batches of examples of similar length, one program for each of a few widths


@runtime_checkable
class SequenceConfig(Protocol):
  """The parts of a task's configuration that `task` reads."""

  @property
  def model(self) -> ClassifierConfig: ...

  @property
  def data(self) -> configs.DataConfig: ...


def reading(data: Any) -> Reading:
  """The settings of `data` for reading texts."""
  names = [field.name for field in dataclasses.fields(Reading) if hasattr(data, field.name)]
  return Reading(**{name: getattr(data, name) for name in names})


def resolved_positions(config: ClassifierConfig, task: str) -> str:
  """The spec of the position encodings, "none" for a baseline; refuses a misfit before data is read."""
  attends = config.architecture in MASKS
  resolved = check(config, task, causal=config.architecture == "decoder") if attends else "none"
  smallest = functional(lambda key: classifier.build(config, 2, 2, 2, key=key))
  jax.eval_shape(smallest.init, jax.random.key(0))
  return resolved


def task(name: str, config: SequenceConfig, source: Dataset, resolved: str, *, mesh: Mesh | None = None) -> Task:
  """The task `name` on `source`, folded before, whose metadata has vocabulary, length, classes, names and chance."""
  metadata, model = source.metadata, config.model
  T = metadata["length"]

  def build(key: PRNGKeyArray) -> Any:
    return classifier.build(model, metadata["vocabulary"], T, metadata["classes"], key=key, mesh=mesh)

  network = functional(build)
  inspected = lambda params, batch: inspection.inspect(
    network, params, lambda module: forward(module, inspection.shortened(batch), None)
  )
  return Task(
    name=name,
    source=bucketed(source) if getattr(config.data, "buckets", False) else source,
    model=network,
    **classification.functions(network, forward, source),
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=T,
    chance=metadata["chance"],
    resolved_positions=resolved,
    inspect=inspected if model.architecture in MASKS else None,
  )


def forward(module: Any, batch: Batch, key: PRNGKeyArray | None) -> Output:
  """Logits `B C` of the valid tokens."""
  tokens = batch["tokens"]
  valid = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None] < batch["length"][:, None]
  return module(tokens, valid=valid, types=batch.get("types"), key=key)


def bucketed(source: Dataset) -> Dataset:
  """The source with every split grouped by the valid tokens of its examples."""
  widths = buckets.widths(source.metadata["length"])
  return dataclasses.replace(source, splits={name: _grouped(split, widths) for name, split in source.splits.items()})


def limited(source: Dataset, limit: int) -> Dataset:
  """The source with at most `limit` examples of train, the same ones whatever their order; 0 = all of them.

  Raises ValueError for a negative limit, and where one class is left.
  """
  if limit < 0:
    raise ValueError(f"--config.data.limit={limit} is negative; give examples of train, or 0 for all")
  train = source.splits["train"]
  if not limit or limit >= len(train):
    return source
  hashes = example_hashes.read(train)
  chosen = np.sort(np.lexsort((hashes.whole, hashes.inputs))[:limit])
  part = folds.View([train], chosen)
  arrays, names = part[np.arange(limit)], source.metadata["names"]
  if len(np.unique(arrays["label"])) < 2:
    raise ValueError(f"--config.data.limit={limit} leaves one class in train; give more examples, or 0 for all")
  counts = dict(zip(names, np.bincount(arrays["label"], minlength=len(names)).tolist(), strict=True))
  metadata = {
    name: dict(source.metadata[name]) | {"train": new} for name, new in (("sizes", limit), ("counts", counts))
  }
  splits, digests = dict(source.splits) | {"train": part}, dict(source.digests) | {"train": digest(arrays)}
  return dataclasses.replace(source, splits=splits, metadata=dict(source.metadata) | metadata, digests=digests)


def _grouped(split: Split, widths: tuple[int, ...]) -> buckets.Bucketed:
  batch = split[np.arange(len(split))]
  cut = [name for name in ("tokens", "types") if name in batch]
  return buckets.Bucketed(split, batch["length"], widths, cut)


def with_types(config: ConfigT, metadata: Mapping[str, Any], name: str) -> ConfigT:
  """`config` with the `types` of the dataset `name`, for 0; raises ValueError for another number of them."""
  types = metadata.get("types", 0)
  if config.types not in (0, types):
    told = f"{name} tells {types} types of tokens apart" if types else f"{name} has no types of tokens"
    raise ValueError(f"--config.model.types={config.types}: {told}; give {types}, or 0 for what the data have")
  return dataclasses.replace(config, types=types)
