"""One mechanism at a time: generated sequences that ask a small decoder for tokens, by accuracy.

  in_context, fuzzy, noisy, selective_copy, compression, memorization      after MAD (Poli et al. 2024)
  induction, parity
  needle, multi_key, multi_value, multi_query, variable_tracking, frequency      after RULER (Hsieh et al. 2024)

What each asks is told in `data.mechanisms`. Batches: tokens int32 [B, T], targets int32 [B, T], −1 where nothing is
asked. With `longest` the test split has longer examples too, and longer int32 [B], the number of an example's length:
`accuracy` is of the trained length, `accuracy@L` of each longer one, and `effective_length` the longest L such that at
it and all shorter ones the accuracy is at least EFFECTIVE, 0 if there is none.
"""

import dataclasses
import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.attention.base import Unsupported
from attention_lab.data.dataset import Dataset, validate_name
from attention_lab.data.mechanisms import generation
from attention_lab.data.mechanisms.base import Shape
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.tasks.base import Batch, LoadFn, Task, check, read
from attention_lab.tasks.parts import masked_targets

NAME = "mechanisms"
SOLVED = masked_targets.SOLVED
EFFECTIVE = 0.85  # as RULER: the score of a model taken as good at its own length (Llama 2 at 4,096 tokens: 85.6 %)


@dataclasses.dataclass
class ModelConfig(configs.ModelConfig):
  tied: bool = True  # the embedding table is also the output map


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # in_context (the default), fuzzy, noisy, selective_copy, compression, memorization, induction, …
  path: str = ""  # stays empty: the examples are generated
  length: int = 0  # T, tokens per example; 0 = as many as suit the dataset, and so for the next five
  vocabulary: int = 0  # V, tokens; of all but parity
  items: int = 0  # keys in an example, tokens to copy, needles or chains
  span: int = 0  # of fuzzy and needles: tokens of a key or a value
  hops: int = 0  # of variable_tracking: assignments from variable to variable
  noise: float = 0.0  # of noisy: fraction of the pairs
  longest: int = 0  # tokens of the longest test examples: length doubled again and again; 0 = those of length alone
  train: int = 100_000  # examples for training
  validation: int = 1_000  # examples for validation
  test: int = 2_000  # examples for the final test, of each length


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 2000  # optimizer steps
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on generated examples; nothing is kept in `workdir`.

  The model has room for the longest test examples, so that a variant whose numbers depend on that room (cosformer,
  sigmoid, bigbird) begins otherwise with `longest` than without. Raises ValueError for what does not fit, naming the
  flag, and Unsupported for a variant that is not causal, or that cannot read longer sequences than it was trained on
  where `longest` asks for them.
  """
  del workdir
  resolved = check(config.model, NAME, causal=True)
  name, shape = _shape(config.data)
  tested = generation.tested_lengths(name, shape.length, config.data.longest)
  make = lambda longest: functional(lambda key: _model(config, shape.vocabulary, longest, key, mesh))
  network = make(tested[-1])
  if len(tested) > 1:
    _check_longer(make(shape.length), network, config, resolved)
  source = read(_source, config.data)
  return Task(
    name=NAME,
    source=source,
    model=network,
    loss=lambda params, batch, key: masked_targets.loss(network, params, batch, key),
    score=lambda params, batch: score(network, tested, params, batch),
    summarize=functools.partial(summarize, tested),
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=shape.length,
    chance=source.metadata["chance"],
    resolved_positions=resolved,
    prepare=masked_targets.prepare,
  )


def score(model: Functional, tested: tuple[int, ...], params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: nats, right answers, questions; those of each longer length end in "@" and the length."""
  if "longer" not in batch:
    return masked_targets.score(model, params, batch)
  of = lambda number: batch["weight"] * (batch["longer"] == number).astype(jnp.float32)
  weights = {f"@{length}" if number else "": of(number) for number, length in enumerate(tested)}
  return masked_targets.score(model, params, batch, weights)


def summarize(tested: tuple[int, ...], sums: Mapping[str, float]) -> dict[str, float]:
  """Accuracy, nats per question and solved on the trained length; where there are longer ones, theirs too.

  effective_length: the longest of the lengths `tested` up to which the accuracy does not fall below EFFECTIVE, in
  tokens; 0 if none. As RULER's effective context size (Hsieh et al. 2024, section 4), whose threshold is a score too.
  """
  metrics = masked_targets.summarize(sums)
  if f"correct@{tested[-1]}" not in sums:
    return metrics
  longer = {length: sums[f"correct@{length}"] / sums[f"questions@{length}"] for length in tested[1:]}
  effective = 0
  for length, accuracy in ({tested[0]: metrics["accuracy"]} | longer).items():
    if accuracy < EFFECTIVE:
      break
    effective = length
  named = {f"accuracy@{length}": accuracy for length, accuracy in longer.items()}
  return metrics | named | {"effective_length": float(effective)}


def _model(config: Config, vocabulary: int, longest: int, key: PRNGKeyArray, mesh: Mesh | None) -> TransformerLM:
  return TransformerLM(config.model, vocabulary, longest, key=key, tied=config.model.tied, mesh=mesh)


def _shape(data: DataConfig) -> tuple[str, Shape]:
  """The dataset and its sizes."""
  if data.path:
    raise ValueError(f"--config.data.path={data.path}: {NAME} are generated, and read no files; leave the path out")
  name = validate_name(data, tuple(generation.MECHANISMS))
  return name, generation.resolve_shape(name, _sizes(data))


def _sizes(data: DataConfig) -> dict[str, int | float]:
  return {field.name: getattr(data, field.name) for field in dataclasses.fields(Shape)}


def _source(data: DataConfig) -> Dataset:
  name, _ = _shape(data)
  examples = (data.train, data.validation, data.test)
  return generation.generate(name, _sizes(data), longest=data.longest, sizes=examples)


def _check_longer(trained: Functional, longer: Functional, config: Config, resolved: str) -> None:
  """Refuses parameters for each position: those beyond the trained length would be tested as they were drawn."""
  leaves = lambda model: jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, jax.random.key(0)))
  for (path, short), (_, long) in zip(leaves(trained), leaves(longer), strict=True):
    names = [part.key for part in path]
    if short.shape == long.shape or "fixed" in names:
      continue
    what = f"--config.model.positions={config.model.positions}"
    what = f"{what} (here {resolved})" if "codes" in names else config.model.attention
    fix = "take a variant without them" if "codes" not in names or config.model.positions == "auto" else "give rope"
    why = "has parameters for each position, and those of longer sequences are never trained"
    raise Unsupported(f"{what} {why}: {fix}, or --config.data.longest=0")
