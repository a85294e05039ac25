"""Predict the next token of text, judged in bits per byte, which does not depend on the tokenizer.

Batches: tokens int32 [B, T+1]; bytes and words int32 [B], UTF-8 bytes and words of the counted targets; optional mask
[B, T], 0 on targets that do not count; for packed documents segments int32 [B, T+1], where 0 is padding and a document
is one run of a number: attention stays within it, positions restart, and no target lies across a border.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.data import text
from attention_lab.models import chunked_cross_entropy, config_checks, inspection
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.layers import Output
from attention_lab.tasks.base import Batch, LoadFn, Task, check, read, target_count, total_loss, with_target_rate

NAME = "language_modeling"
LARGEST_EXPONENT = 100.0  # of a perplexity, beyond which it says nothing


@dataclasses.dataclass
class ModelConfig(configs.ModelConfig):
  tied: bool = True  # the embedding table is also the output map


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # python_docs (the default, if no path is given), wikitext2, tiny_shakespeare, any text of TFDS
  path: str = ""  # a text file, or a folder of text files, in place of a named dataset
  length: int = 128  # T, tokens per example
  tokenizer: str = "bpe"  # byte, char, word, bpe or wordpiece, trained on the train split
  vocabulary: int = 512  # ids of the tokenizer, at most; bpe needs 257; 0 = all there are (byte, char, word)
  prefix: int = 0  # tokens at the start of a window that read each other in both directions, a prefix language model
  packing: bool = False  # whole documents in rows, which do not read each other, in place of windows over all text


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 600  # optimizer steps
  batch: int = 16  # examples per step, over all devices
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; the tokenizer is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Unsupported for a variant that is not causal.
  """
  resolved = check(config.model, NAME, causal=True)
  if config.data.folds:
    raise ValueError(
      f"--config.data.folds={config.data.folds}: windows of one document would stand in two parts; give 0"
    )
  data = config.data
  _check_demands(config)
  source = read(text.load, data, workdir, data.vocabulary, data.tokenizer, data.packing, data.prefix)
  vocabulary, length = source.metadata["vocabulary"], config.data.length

  def model(key: PRNGKeyArray) -> TransformerLM:
    return TransformerLM(config.model, vocabulary, length, key=key, tied=config.model.tied, mesh=mesh)

  network = functional(model)
  return Task(
    name=NAME,
    source=source,
    model=network,
    loss=lambda params, batch, key: loss(network, params, batch, key, data.prefix),
    score=lambda params, batch: score(network, params, batch, data.prefix),
    summarize=summarize,
    primary="bits_per_byte",
    higher_is_better=False,
    tokens_per_example=length,
    chance=None,
    resolved_positions=resolved,
    inspect=lambda params, batch: inspection.inspect(network, params, lambda module: _inspected(module, batch)),
    prepare=prepare,
  )


def prepare(batch: Batch, key: PRNGKeyArray | None) -> Batch:
  """The batch with the number of counted targets per example, for the `loss` of micro-batches."""
  del key
  return with_target_rate(batch, _counted(batch))


def loss(
  model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None, prefix: int = 0
) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy over the counted targets, in nats, plus auxiliary losses."""
  head, hidden = _run(model, params, batch, key, prefix)
  counted = _counted(batch)
  nll = chunked_cross_entropy.nll_sum(head, hidden.logits, batch["tokens"][:, 1:], counted)
  return total_loss(nll / target_count(batch, counted), hidden)


def score(model: Functional, params: Params, batch: Batch, prefix: int = 0) -> dict[str, Array]:
  """Sums over the batch: nats, counted targets, right guesses, bytes, words."""
  head, hidden = _run(model, params, batch, None, prefix)
  counted = _counted(batch) * batch["weight"][:, None]
  return chunked_cross_entropy.score_sums(head, hidden.logits, batch["tokens"][:, 1:], counted) | {
    "tokens": jnp.sum(counted),
    "bytes": jnp.sum(batch["bytes"].astype(jnp.float32) * batch["weight"]),
    "words": jnp.sum(batch["words"].astype(jnp.float32) * batch["weight"]),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Bits per byte, perplexity per word, and nats and accuracy per token."""
  return {
    "bits_per_byte": sums["nll"] / math.log(2) / sums["bytes"],
    "word_perplexity": math.exp(min(sums["nll"] / max(sums["words"], 1.0), LARGEST_EXPONENT)),
    "loss": sums["nll"] / sums["tokens"],
    "accuracy": sums["correct"] / sums["tokens"],
  }


def _inspected(module: TransformerLM, batch: Batch) -> Output:
  """Hidden states of the first tokens, packed or not, as one text."""
  return module.hidden(batch["tokens"][:, :-1][:, : inspection.LENGTH])


def _run(
  model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None, prefix: int
) -> tuple[chunked_cross_entropy.Head, Output]:
  """The output map, and hidden states in place of logits."""
  mask, positions = CAUSAL, Positions()
  if prefix:
    mask = Mask(causal=True, prefix=jnp.full((1,), prefix, jnp.int32))
  if "segments" in batch:
    segments = batch["segments"][:, :-1]
    restarted = restarting(segments)
    mask = Mask(causal=True, q_segments=segments, k_segments=segments)
    positions = Positions(q=restarted, k=restarted)
  module = model.bind(params)
  return module.output_head(), module.hidden(batch["tokens"][:, :-1], mask=mask, positions=positions, key=key)


def _check_demands(config: Config) -> None:
  """Refuses variants that do not honour the mask which the data ask for."""
  wanted = ["prefix"] * bool(config.data.prefix) + ["segments"] * config.data.packing
  for variant in dict.fromkeys(config_checks.variants(config.model)):
    for name in wanted:
      if name not in variant.claims().masks:
        flag = "prefix=0" if name == "prefix" else "packing=false"
        raise Unsupported(f"{spec.to_string(variant)} does not honour {name}: give --config.data.{flag}, or softmax")


def restarting(segments: Int[Array, "B T"]) -> Int[Array, "B T"]:
  """0, 1, 2, … within each run of one segment number."""
  index = jnp.arange(segments.shape[1], dtype=jnp.int32)[None]
  starts = jnp.pad(segments[:, 1:] != segments[:, :-1], ((0, 0), (1, 0)))
  return index - jax.lax.cummax(jnp.where(starts, index, 0), axis=1)


def _counted(batch: Batch) -> Float[Array, "B T"]:
  counted = batch["mask"] if "mask" in batch else jnp.ones(batch["tokens"][:, 1:].shape, jnp.float32)
  if "segments" in batch:
    before, after = batch["segments"][:, :-1], batch["segments"][:, 1:]
    counted = counted * ((before == after) & (after > 0)).astype(jnp.float32)
  return counted
