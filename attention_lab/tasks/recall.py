"""Multi-query associative recall: give the value that stood behind a key (Arora et al. 2023, Zoology); by accuracy.

Batches: tokens int32 [B, T], targets int32 [B, T], −1 where nothing is asked.
"""

import dataclasses

from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import recall
from attention_lab.data.dataset import Dataset, validate_name
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.tasks.base import LoadFn, Task, check, read
from attention_lab.tasks.parts import masked_targets

NAME = "recall"
SOLVED = masked_targets.SOLVED
summarize = masked_targets.summarize


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


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on generated examples; nothing is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Unsupported for a variant that is not causal.
  """
  del workdir
  resolved = check(config.model, NAME, causal=True)
  source = read(_source, config.data)
  vocabulary, length = config.data.vocabulary, config.data.length

  def model(key: PRNGKeyArray) -> TransformerLM:
    return TransformerLM(config.model, vocabulary, length, key=key, tied=config.model.tied, mesh=mesh)

  network = functional(model)
  return Task(
    name=NAME,
    source=source,
    model=network,
    loss=lambda params, batch, key: masked_targets.loss(network, params, batch, key),
    score=lambda params, batch: masked_targets.score(network, params, batch),
    summarize=summarize,
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=length,
    chance=source.metadata["chance"],
    resolved_positions=resolved,
    prepare=masked_targets.prepare,
  )


def _source(data: DataConfig) -> Dataset:
  if data.path:
    raise ValueError(f"--config.data.path={data.path}: recall is generated, and reads no files; leave the path out")
  validate_name(data, recall.RECALLS)
  sizes = (data.train, data.validation, data.test)
  return recall.generate(data.vocabulary, data.length, data.pairs, power=data.power, filler=data.filler, sizes=sizes)
