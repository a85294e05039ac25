"""Tell hidden tokens of a pair of texts, and whether the second follows the first; judged by nats per hidden token.

The pre-training of BERT (Devlin et al. 2019). Batches: tokens and types int32 [B, T], length and next int32 [B];
validation and test also masked int32 [B, T] and chosen bool [B, T], so that every run is judged on the same tokens.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import masked
from attention_lab.models import bert, chunked_cross_entropy, inspection
from attention_lab.models.bert import TYPES, Bert
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, LoadFn, Task, check, read, target_count, total_loss, with_target_rate
from attention_lab.tasks.parts import sequences

NAME = "masked_language_modeling"


@dataclasses.dataclass
class ModelConfig(configs.ModelConfig):
  heads: int = 4  # N, query heads
  dropout: float = 0.1  # rate in [0, 1), on embeddings and on both residual branches
  types: int = TYPES  # kinds of segments told apart by a learned vector: 2, for two texts


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # python_docs (the default, if no path is given), imdb_reviews, wikitext2, any text of TFDS
  path: str = ""  # a text file, or a folder of text files, in place of a named dataset
  length: int = 128  # T, tokens of a pair with its class token and separators
  tokenizer: str = "wordpiece"  # byte, char, word, bpe or wordpiece, trained on the train split
  vocabulary: int = 8000  # ids of the tokenizer, at most


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 2000  # optimizer steps
  batch: int = 32  # examples per step, over all devices
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; the tokenizer is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Unsupported for a variant that is causal by
  construction.
  """
  resolved = check(config.model, NAME, causal=False)
  for name, value, wanted, why in (
    ("model.types", config.model.types, TYPES, "a pair of texts has two"),
    ("data.folds", config.data.folds, 0, "training draws its own masks, so that train and validation differ"),
  ):
    if value != wanted:
      raise ValueError(f"--config.{name}={value}: {why}; give {wanted}")
  source = read(masked.load, config.data, workdir, sequences.reading(config.data))
  vocabulary, length = source.metadata["vocabulary"], config.data.length
  network = functional(lambda key: Bert(config.model, vocabulary, length, key=key, mesh=mesh))
  special = dict(source.metadata["special"]) | {"end_of_text": source.metadata["end_of_text"]}
  return Task(
    name=NAME,
    source=source,
    model=network,
    loss=lambda params, batch, key: loss(network, special, params, batch, key),
    score=lambda params, batch: score(network, params, batch),
    summarize=summarize,
    primary="loss",
    higher_is_better=False,
    tokens_per_example=length,
    chance=None,
    resolved_positions=resolved,
    inspect=lambda params, batch: inspection.inspect(
      network,
      params,
      lambda module: _hidden(module, inspection.shortened(batch), batch["masked"][:, : inspection.LENGTH]),
    ),
    prepare=lambda batch, key: prepare(vocabulary, special, batch, key),
  )


def prepare(vocabulary: int, special: Mapping[str, int], batch: Batch, key: PRNGKeyArray | None) -> Batch:
  """The batch with tokens hidden by `key` (`shown`), which ones they are (`told`) and their number per example, for the
  `loss` of micro-batches.
  """
  shown, told = _drawn(vocabulary, special, batch, key)
  return with_target_rate({**batch, "shown": shown, "told": told}, told.astype(jnp.float32))


def loss(
  model: Functional, special: Mapping[str, int], params: Params, batch: Batch, key: PRNGKeyArray | None
) -> tuple[Array, dict[str, Array]]:
  """Nats per hidden token, drawn anew by `key`, plus nats per pair, plus auxiliary losses."""
  module = model.bind(params)
  prepared = (batch["shown"], batch["told"]) if "shown" in batch else None
  shown, chosen = prepared or _drawn(module.vocabulary, special, batch, key)
  hidden = _hidden(module, batch, shown, key)
  states, targets, weights = _gathered(hidden.logits, batch["tokens"], chosen)
  total = chunked_cross_entropy.nll_sum(module.masked_head(), module.transform(states), targets, weights)
  nats = total / target_count(batch, weights)
  pairs = jnp.mean(chunked_cross_entropy.cross_entropy(module.next_logits(hidden.logits), batch["next"]))
  value, scalars = total_loss(nats + pairs, hidden)
  return value, scalars | {"masked_loss": nats, "next_loss": pairs}


def score(model: Functional, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: of hidden tokens nats, right guesses and their number; of pairs likewise."""
  module, weight = model.bind(params), batch["weight"]
  hidden = _hidden(module, batch, batch["masked"])
  states, targets, weights = _gathered(hidden.logits, batch["tokens"], batch["chosen"])
  weights = weights * weight[:, None]
  logits = module.next_logits(hidden.logits)
  right = (jnp.argmax(logits, axis=-1) == batch["next"]).astype(jnp.float32)
  return chunked_cross_entropy.score_sums(module.masked_head(), module.transform(states), targets, weights) | {
    "tokens": jnp.sum(weights),
    "next_nll": jnp.sum(chunked_cross_entropy.cross_entropy(logits, batch["next"]) * weight),
    "next_correct": jnp.sum(right * weight),
    "pairs": jnp.sum(weight),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Nats and accuracy per hidden token, and per pair."""
  return {
    "loss": sums["nll"] / sums["tokens"],
    "accuracy": sums["correct"] / sums["tokens"],
    "next_loss": sums["next_nll"] / sums["pairs"],
    "next_accuracy": sums["next_correct"] / sums["pairs"],
  }


def _drawn(vocabulary: int, special: Mapping[str, int], batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, Array]:
  """The tokens with some hidden by `key`, and which ones were chosen, both `B T`."""
  ids = tuple(sorted(set(special.values())))
  draw = jax.random.key(0) if key is None else jax.random.fold_in(key, 1)
  return bert.mask_tokens(draw, batch["tokens"], batch["length"], ids, vocabulary, special["mask"])


def _inspected(module: Bert, batch: Batch) -> Output:
  """Hidden states of the first tokens."""
  return _hidden(module, inspection.shortened(batch), batch["masked"][:, : inspection.LENGTH])


def _hidden(module: Bert, batch: Batch, shown: Array, key: PRNGKeyArray | None = None) -> Output:
  valid = jnp.arange(shown.shape[1], dtype=jnp.int32)[None] < batch["length"][:, None]
  return module(shown, valid=valid, types=batch["types"], key=key)


def _gathered(hidden: Array, tokens: Array, chosen: Array) -> tuple[Array, Array, Array]:
  """Hidden states, targets and weights of as many places as may be chosen in a row: the others cost no logits."""
  most = math.ceil(masked.RATE * tokens.shape[1])
  places = jnp.argsort(~chosen, axis=1, stable=True)[:, :most]
  weights = jnp.take_along_axis(chosen, places, axis=1).astype(jnp.float32)
  targets = jnp.take_along_axis(tokens, places, axis=1)
  return jnp.take_along_axis(hidden, places[:, :, None], axis=1), targets, weights
