"""Multi-query associative recall: give the value that stood behind a key (Arora et al. 2023, Zoology); by accuracy.

Batches: tokens int32 [B, T], targets int32 [B, T], −1 where nothing is asked.
"""

import dataclasses
from collections.abc import Mapping

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import recall
from attention_lab.data.source import chosen
from attention_lab.models import vocabulary
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.tasks.base import Batch, Read, Task, check, objective, read

NAME = "recall"
SOLVED = 0.99  # accuracy from which the task counts as solved: it is learned by a jump


@dataclasses.dataclass
class ModelConfig(configs.ModelConfig):
  width: int = 32  # D, the model width
  tied: bool = True  # the embedding table is also the output map


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # recall, the only choice
  path: str = ""  # stays empty: the examples are generated
  length: int = 32  # T, tokens per example
  vocabulary: int = 32  # V, half of it keys and half values
  pairs: int = 4  # keys with their values in an example, and queries
  power: float = 0.01  # exponent of the law of the gaps before queries: near 0 most are short, at 1 all are alike
  filler: str = "random"  # what stands between queries: random tokens, or blank
  train: int = 100_000  # examples for training
  validation: int = 1_000  # examples for validation
  test: int = 3_000  # examples for the final test


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 600  # optimizer steps
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: Read = read) -> Task:
  """The task on generated examples; nothing is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Refused for a variant that is not causal.
  """
  del workdir
  positions = check(config.model, NAME, causal=True)
  source = read(_source, config.data)
  words, length = config.data.vocabulary, config.data.length

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
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=length,
    chance=source.facts["chance"],
    positions=positions,
  )


def loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy over what is asked, in nats, plus auxiliary losses."""
  module = model.bind(params)
  hidden, (targets, asked) = module.hidden(batch["tokens"], key=key), _asked(batch)
  nll = vocabulary.nats(module.output_head(), hidden.logits, targets, asked)
  return objective(nll / jnp.maximum(jnp.sum(asked), 1.0), hidden)


def score(model: Functional, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: nats, right answers, questions."""
  module = model.bind(params)
  hidden, (targets, asked) = module.hidden(batch["tokens"]), _asked(batch)
  asked = asked * batch["weight"][:, None]
  return vocabulary.score(module.output_head(), hidden.logits, targets, asked) | {"questions": jnp.sum(asked)}


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Accuracy and nats per question; solved is 1 from an accuracy of SOLVED."""
  accuracy = sums["correct"] / sums["questions"]
  return {"accuracy": accuracy, "loss": sums["nll"] / sums["questions"], "solved": float(accuracy >= SOLVED)}


def _source(data: DataConfig) -> recall.Source:
  if data.path:
    raise ValueError(f"--config.data.path={data.path}: recall is generated, and reads no files; leave the path out")
  chosen(data, recall.RECALLS)
  sizes = (data.train, data.validation, data.test)
  return recall.generate(data.vocabulary, data.length, data.pairs, power=data.power, filler=data.filler, sizes=sizes)


def _asked(batch: Batch) -> tuple[Int[Array, "B T"], Float[Array, "B T"]]:
  """The targets, 0 where nothing is asked, and 1 where a value is asked for."""
  targets = batch["targets"]
  return jnp.maximum(targets, 0), (targets >= 0).astype(jnp.float32)
