"""Name the class of an image, judged by accuracy.

Batches: image float32 [B, h, w, c] in [0, 1], label int32 [B].
"""

import dataclasses
import math
from collections.abc import Mapping

import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array, PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import images
from attention_lab.models.functional import Functional, Params, functional
from attention_lab.models.vision_transformer import VisionConfig, VisionTransformer, layout, sized
from attention_lab.models.vocabulary import cross_entropy
from attention_lab.tasks.base import Batch, Task, check, objective

NAME = "image_classification"


@dataclasses.dataclass
class ModelConfig(VisionConfig):
  heads: int = 4  # N, query heads
  positions: str = "learned"  # learned (as published), auto, none, sinusoidal, rope, sincos2d
  dropout: float = 0.1  # rate in [0, 1), on embeddings and on both residual branches


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # digits (the default, if no path is given)
  path: str = ""  # a folder PATH/CLASS/*.png, in place of a named dataset
  length: int = 0  # stays 0: an image has as many tokens as patches


@dataclasses.dataclass
class OptimizerConfig(configs.OptimizerConfig):
  weight_decay: float = 1.0  # per step and unit of learning rate, on matrices only; strong, for a thousand images


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 1000  # optimizer steps
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None) -> Task:
  """The task on `config.data`; nothing is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Refused for a variant that is causal by construction.
  """
  del workdir
  if config.data.length:
    raise ValueError(
      f"--config.data.length={config.data.length}: an image has as many tokens as patches; give --config.model.patch"
    )
  settings = sized(config.model)
  positions = check(settings, NAME, causal=False, grid=True)
  source = images.load(config.data)
  shape, classes = tuple(source.facts["image"]), source.facts["classes"]
  grid, extra = layout(settings, shape)

  def model(key: PRNGKeyArray) -> VisionTransformer:
    return VisionTransformer(settings, shape, classes, key=key, mesh=mesh)

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
    tokens_per_example=math.prod(grid) + extra,
    chance=source.facts["chance"],
    positions=positions,
  )


def loss(model: Functional, params: Params, batch: Batch, key: PRNGKeyArray | None) -> tuple[Array, dict[str, Array]]:
  """Mean cross entropy, in nats, plus auxiliary losses."""
  output = model.apply(params, batch["image"], key=key)
  return objective(jnp.mean(cross_entropy(output.logits, batch["label"])), output)


def score(model: Functional, params: Params, batch: Batch) -> dict[str, Array]:
  """Sums over the batch: nats, right guesses, images."""
  logits, weight = model.apply(params, batch["image"]).logits, batch["weight"]
  right = (jnp.argmax(logits, axis=-1) == batch["label"]).astype(jnp.float32)
  return {
    "nll": jnp.sum(cross_entropy(logits, batch["label"]) * weight),
    "correct": jnp.sum(right * weight),
    "images": jnp.sum(weight),
  }


def summarize(sums: Mapping[str, float]) -> dict[str, float]:
  """Accuracy, and nats per image."""
  return {"accuracy": sums["correct"] / sums["images"], "loss": sums["nll"] / sums["images"]}
