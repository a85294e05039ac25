"""Predict the next token of text, judged in bits per byte, which does not depend on the tokenizer.

Batches: tokens int32 [B, T+1]; bytes int32 [B], UTF-8 bytes of the counted targets; optional mask [B, T], 0 on targets
that do not count; for packed documents segments int32 [B, T+1], where 0 is padding and a document is one run of a
number: attention stays within it, positions restart, and no target lies across a border.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.data import text
from attention_lab.models import vocabulary
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, Task, check, objective

NAME = "language_modeling"


@dataclasses.dataclass
class ModelConfig(configs.ModelConfig):
  tied: bool = True  # the embedding table is also the output map


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # python_docs (the default, if no path is given)
  path: str = ""  # a text file, or a folder of text files, in place of a named dataset
  length: int = 128  # T, tokens per example
  vocabulary: int = 512  # ids of the byte-level BPE tokenizer, at least 257


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 600  # optimizer steps
  batch: int = 16  # examples per step, over all devices
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None) -> Task:
  """The task on `config.data`; the tokenizer is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Refused for a variant that is not causal.
  """
  positions = check(config.model, NAME, causal=True)
  source = text.load(config.data, workdir, config.data.vocabulary)
  words, length = source.facts["vocabulary"], config.data.length

  def model(key: PRNGKeyArray) -> TransformerLM:
    return TransformerLM(config.model, words, length, key=key, tied=config.model.tied, mesh=mesh)

  own = functional(model)
  return Task(
    name=NAME,
    source=source,
    model=own,
    loss=lambda params, batch, key: loss(own, params, batch, key),
    score=lambda params, batch: score(own, params, batch),
    summarize=summarize,
    primary="bits_per_byte",
    higher_is_better=False,
    tokens_per_example=length,
    chance=None,
    positions=positions,
  )


def loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy over the counted targets, in nats, plus auxiliary losses."""
  head, hidden = _run(model, params, batch["tokens"], batch.get("segments"), key)
  counted = _counted(batch)
  nll = vocabulary.nats(head, hidden.logits, batch["tokens"][:, 1:], counted)
  return objective(nll / jnp.maximum(jnp.sum(counted), 1.0), hidden)


def score(model: Functional, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: nats, counted targets, right guesses, bytes."""
  head, hidden = _run(model, params, batch["tokens"], batch.get("segments"), None)
  counted = _counted(batch) * batch["weight"][:, None]
  return vocabulary.score(head, hidden.logits, batch["tokens"][:, 1:], counted) | {
    "tokens": jnp.sum(counted),
    "bytes": jnp.sum(batch["bytes"].astype(jnp.float32) * batch["weight"]),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Bits per byte, and nats and accuracy per token."""
  return {
    "bits_per_byte": sums["nll"] / math.log(2) / sums["bytes"],
    "loss": sums["nll"] / sums["tokens"],
    "accuracy": sums["correct"] / sums["tokens"],
  }


def _run(
  model: Functional, params: Params, tokens: Array, segments: Array | None, key: PRNGKeyArray | None
) -> tuple[vocabulary.Head, Output]:
  """The output map, and hidden states in place of logits."""
  mask, positions = CAUSAL, Positions()
  if segments is not None:
    own = segments[:, :-1]
    place = restarting(own)
    mask, positions = Mask(causal=True, q_segments=own, k_segments=own), Positions(q=place, k=place)
  module = model.bind(params)
  return module.output_head(), module.hidden(tokens[:, :-1], mask=mask, positions=positions, key=key)


def restarting(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
  """0, 1, 2, … within each run of one segment number."""
  place = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
  starts = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
  return place - jax.lax.cummax(jnp.where(starts, place, 0), axis=1)


def _counted(batch: Batch) -> Float[Array, "B T"]:
  counted = batch["mask"] if "mask" in batch else jnp.ones(batch["tokens"][:, 1:].shape, jnp.float32)
  if "segments" in batch:
    before, after = batch["segments"][:, :-1], batch["segments"][:, 1:]
    counted = counted * ((before == after) & (after > 0)).astype(jnp.float32)
  return counted
