"""Name the class of an image, judged by accuracy.

Batches: image float32 [B, h, w, c] in [0, 1], label int32 [B]; where training images are mixed also label_b and mix.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab import config as configs
from attention_lab.data import augment, folds, images
from attention_lab.data.dataset import Dataset
from attention_lab.models import inspection, vision
from attention_lab.models.functional import functional
from attention_lab.models.layers import Output
from attention_lab.models.vision import VisionConfig, sized
from attention_lab.tasks.base import Batch, LoadFn, Task, check, read
from attention_lab.tasks.parts import classification

NAME = "image_classification"


@dataclasses.dataclass
class ModelConfig(VisionConfig):
  heads: int = 4  # N, query heads
  positions: str = "learned"  # learned (as published), auto, none, sinusoidal, rope, sincos2d
  dropout: float = 0.1  # rate in [0, 1), on embeddings and on both residual branches


@dataclasses.dataclass
class DataConfig(configs.DataConfig):
  name: str = ""  # digits (the default, if no path is given), fashion_mnist, cifar10, … any of TFDS with images, labels
  path: str = ""  # a folder PATH/CLASS/*.png, in place of a named dataset
  length: int = 0  # stays 0: an image has as many tokens as patches
  side: int = 0  # pixels that images are scaled to; 0 = as they are
  crop: int = 0  # pixels of padding, from which training images are cut at a random place; 0 = off
  flip: bool = False  # left and right of training images change places, half of the time
  randaugment: int = 0  # operations on a training image, drawn anew each time (Cubuk et al. 2020); 0 = off
  magnitude: int = 9  # of those operations, 0 to 30
  mixup: float = 0.0  # α of the share in which two training images are mixed (Zhang et al. 2018); 0 = off
  cutmix: float = 0.0  # α of the share of one that another is pasted over (Yun et al. 2019); 0 = off


@dataclasses.dataclass
class OptimizerConfig(configs.OptimizerConfig):
  weight_decay: float = 1.0  # per step and unit of learning rate, on matrices only; strong, for a thousand images


@dataclasses.dataclass
class Config(configs.Config):
  steps: int = 1000  # optimizer steps
  pretrained: str = ""  # workdir of an image_classification run to begin with, of images of any size
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)


def build(config: Config, workdir: str, mesh: Mesh | None = None, read: LoadFn = read) -> Task:
  """The task on `config.data`; nothing is kept in `workdir`.

  Raises ValueError for what does not fit, naming the flag, and Unsupported for a variant that is causal by
  construction.
  """
  del workdir
  if config.data.length:
    raise ValueError(
      f"--config.data.length={config.data.length}: an image has as many tokens as patches; give --config.model.patch"
    )
  vision.check(config.model)
  settings, drawn = sized(config.model), augmentation(config.data)
  resolved = resolved_positions(settings)
  source = folds.fold(read(images.load, config.data, config.data.side), config.data.folds, config.data.fold)
  shape, classes = tuple(source.metadata["image"]), source.metadata["classes"]
  tokens = vision.places(settings, shape)

  def model(key: PRNGKeyArray) -> Any:
    return vision.build(settings, shape, classes, key=key, mesh=mesh)

  network = functional(model)
  inspected = lambda params, batch: inspection.inspect(network, params, lambda module: forward(module, batch, None))
  return Task(
    name=NAME,
    source=_augmented(source, drawn) if drawn else source,
    model=network,
    **classification.functions(network, forward, source),
    primary="accuracy",
    higher_is_better=True,
    tokens_per_example=tokens,
    chance=source.metadata["chance"],
    resolved_positions=resolved,
    inspect=inspected if attends(settings) else None,
    layout=vision.layout(settings, shape) if settings.architecture == "vit" else None,
  )


def attends(config: VisionConfig) -> bool:
  """Whether any layer of the model is attention."""
  return config.architecture != "resnet" or config.block == "non_local"


def resolved_positions(config: VisionConfig) -> str:
  """The spec of the position encodings, "none" for a residual network; refuses a misfit before data is read."""
  if config.architecture != "resnet":
    return check(config, NAME, causal=False, grid=True)
  network = functional(lambda key: vision.build(config, (8, 8, 1), 2, key=key))
  jax.eval_shape(network.init, jax.random.key(0))
  if attends(config):
    blocks = dataclasses.replace(config, layers=2, width=2 * config.width, positions="auto")
    check(blocks, NAME, causal=False, grid=True)
  return "none"


def augmentation(data: DataConfig) -> augment.Augmentation:
  """What is drawn for training images; ValueError for values out of range, and a magnitude of no operation."""
  if data.magnitude != DataConfig.magnitude and not data.randaugment:
    fix = "give the number of operations too, or leave it out"
    raise ValueError(f"--config.data.magnitude={data.magnitude} with --config.data.randaugment=0 means nothing: {fix}")
  names = [field.name for field in dataclasses.fields(augment.Augmentation)]
  return augment.Augmentation(**{name: getattr(data, name) for name in names})


def forward(module: Any, batch: Batch, key: PRNGKeyArray | None) -> Output:
  """Logits `B C`."""
  return module(batch["image"], key=key)


def _augmented(source: Dataset, settings: augment.Augmentation) -> Dataset:
  train = augment.Augmented(source.splits["train"], settings)
  return dataclasses.replace(source, splits=dict(source.splits) | {"train": train})
