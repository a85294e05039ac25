"""Models that classify images: their configuration, and the choice by `--config.model.architecture`.

Sizes of vision transformers are those of Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, table 1), Ti and S
those of Steiner et al. 2022 (https://arxiv.org/abs/2106.10270, table 2).
"""

import dataclasses
import importlib
import math
from typing import NamedTuple

from flax import nnx
from jax.sharding import Mesh
from jaxtyping import PRNGKeyArray

from attention_lab.config import ModelConfig
from attention_lab.models.config_checks import FLAG, choose

ARCHITECTURES = {  # module and class; imported when asked for
  "vit": ("vision_transformer", "VisionTransformer"),
  "hierarchical": ("hierarchical", "HierarchicalVisionTransformer"),
  "resnet": ("baselines.residual", "ResNet"),
}  # module and class
OWNERS = {
  "stages": "hierarchical",
  "registers": "vit",
  "size": "vit",
  "block": "resnet",
}  # of a field, the architecture
POOLINGS = ("mean", "cls", "attention")


class Size(NamedTuple):
  """A published size; `mini` is ours, for small images on a CPU."""

  layers: int
  width: int
  heads: int
  mlp_width: int
  patch: int


SIZES = {
  "mini/2": Size(2, 64, 4, 256, 2),
  "mini/4": Size(2, 64, 4, 256, 4),
  "Ti/16": Size(12, 192, 3, 768, 16),
  "S/16": Size(12, 384, 6, 1536, 16),
  "S/32": Size(12, 384, 6, 1536, 32),
  "B/16": Size(12, 768, 12, 3072, 16),
  "B/32": Size(12, 768, 12, 3072, 32),
  "L/16": Size(24, 1024, 16, 4096, 16),
}


@dataclasses.dataclass
class VisionConfig(ModelConfig):
  architecture: str = "vit"  # vit, hierarchical (windows, Swin-like) or resnet
  size: str = ""  # Ti/16, S/16, S/32, B/16, B/32, L/16, mini/2 or mini/4: sets layers, width, heads, mlp_width, patch
  patch: int = 2  # side of a square patch, pixels
  pooling: str = "mean"  # what is classified: mean of all patches, cls (a token in front of them), attention over them
  registers: int = 0  # learned tokens in front of the patches, which layers may use and nothing else reads; for vit
  stages: str = ""  # layers of each stage as in 2,2, each half as fine as the last; "" = two halves; for hierarchical
  block: str = "plain"  # plain, squeeze_excitation, cbam or non_local, which calls the attention; for resnet


def build(
  config: VisionConfig, image: tuple[int, int, int], classes: int, *, key: PRNGKeyArray, mesh: Mesh | None = None
) -> nnx.Module:
  """The model `config.architecture`: (images `B h w c` in [0, 1], key=) -> Output with logits `B C`.

  image: height, width and channels. Raises ValueError for an unknown architecture, or a field that is another's.
  """
  check(config)
  path, kind = ARCHITECTURES[config.architecture]
  module = importlib.import_module(f"attention_lab.models.{path}")
  return getattr(module, kind)(config, image, classes, key=key, mesh=mesh)


def check(config: VisionConfig) -> None:
  """Raises ValueError for an unknown architecture, or a field that belongs to another one, naming the flags."""
  name, default = choose(f"{FLAG}.architecture", config.architecture, ARCHITECTURES), type(config)()
  for field, owner in OWNERS.items():
    setting = getattr(config, field)
    if owner != name and setting != getattr(default, field):
      fix = f"leave it out, or give {FLAG}.architecture={owner}"
      raise ValueError(f"{FLAG}.{field}={setting} means nothing to {FLAG}.architecture={name}: {fix}")


def sized(config: VisionConfig) -> VisionConfig:
  """The configuration with its `size` written out; raises ValueError for an unknown size, or a field against it."""
  if not config.size:
    return config
  size = SIZES[choose(f"{FLAG}.size", config.size, SIZES)]
  default = type(config)()
  for name, value in size._asdict().items():
    setting = getattr(config, name)
    if setting not in (getattr(default, name), value):
      raise ValueError(
        f"{FLAG}.{name}={setting} contradicts {FLAG}.size={config.size}, which has {value}; give one of the two"
      )
  return dataclasses.replace(config, size="", **size._asdict())


def layout(config: VisionConfig, image: tuple[int, int, int]) -> tuple[tuple[int, int], int]:
  """The grid of patches, and the number of tokens before it: a class token, if there is one, then the registers.

  Raises ValueError if patches do not fill the image.
  """
  height, width, _ = image
  if config.patch < 1 or height % config.patch or width % config.patch:
    raise ValueError(
      f"{FLAG}.patch={config.patch} does not divide images of {height}×{width} pixels; give a common divisor"
    )
  if config.registers < 0:
    raise ValueError(f"{FLAG}.registers={config.registers} is negative; 0 means none")
  extra = int(choose(f"{FLAG}.pooling", config.pooling, POOLINGS) == "cls") + config.registers
  return (height // config.patch, width // config.patch), extra


def places(config: VisionConfig, image: tuple[int, int, int]) -> int:
  """How many tokens enter the first layer; of a residual network, the pixels. Raises ValueError as `layout`."""
  check(config)
  if config.architecture == "resnet":
    return math.prod(image[:2])
  grid, extra = layout(sized(config), image)
  return math.prod(grid) + extra
