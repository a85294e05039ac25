"""The Vision Transformer: an image as a row of patches.

Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, section 3.1 and table 1); Ti and S are those of Steiner et
al. 2022 (https://arxiv.org/abs/2106.10270, table 2). Registers: Darcet et al. 2024 (https://arxiv.org/abs/2309.16588).
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import rng
from attention_lab.models.config_checks import FLAG, choose
from attention_lab.models.layers import Linear, Output
from attention_lab.models.pooling import AttentionPooling
from attention_lab.models.position_encodings import STD
from attention_lab.models.transformer import Transformer

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


def sized(config: VisionConfig) -> VisionConfig:
  """The configuration with its `size` written out; raises ValueError for an unknown size, or a field against it."""
  if not config.size:
    return config
  size = SIZES[choose(f"{FLAG}.size", config.size, SIZES)]
  default = type(config)()
  for name, value in size._asdict().items():
    given = getattr(config, name)
    if given not in (getattr(default, name), value):
      raise ValueError(
        f"{FLAG}.{name}={given} contradicts {FLAG}.size={config.size}, which has {value}; give one of the two"
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


class VisionTransformer(nnx.Module):
  """Logits over C classes of images `B h w c`; max_len is the number of patches and of the tokens before them."""

  def __init__(
    self,
    config: VisionConfig,
    image: tuple[int, int, int],
    classes: int,
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
  ):
    config = sized(config)
    self.patch, self.pooling = config.patch, config.pooling
    self.grid, self.extra = layout(config, image)
    self.max_len = math.prod(self.grid) + self.extra
    own = rng.child(key, "encoder")
    self.encoder = Transformer(config, self.max_len, key=own, grid=self.grid, extra=self.extra, mesh=mesh)
    self.patches = Linear((self.patch**2 * image[2],), (config.width,), key=rng.child(key, "patches"))
    if self.pooling == "cls":
      self.class_token = nnx.Param(jnp.zeros((1, 1, config.width)))
    if config.registers:
      start = jax.random.normal(rng.child(key, "registers"), (1, config.registers, config.width))
      self.registers = nnx.Param(STD * start)
    if self.pooling == "attention":
      self.pool = AttentionPooling(config, key=rng.child(key, "pool"), mesh=mesh)
    self.head = Linear((config.width,), (classes,), key=rng.child(key, "head"))

  def __call__(self, images: Float[Array, "B h w c"], *, key: PRNGKeyArray | None = None) -> Output:
    """Logits `B C` in float32, of pixels in [0, 1], which are brought to [−1, 1]."""
    x = self.patches(patches(2.0 * images - 1.0, self.patch).astype(self.encoder.dtype))
    x = jnp.concatenate([*self._leading(x), x], axis=1) if self.extra else x
    positions = Positions(grid=self.grid, extra=self.extra)
    hidden = self.encoder(x, mask=FULL, positions=positions, key=rng.child(key, "encoder"))
    return hidden._replace(logits=self.head(self._pooled(hidden.logits), jnp.float32))

  def _leading(self, x: Array) -> list[Array]:
    """The tokens before the patches x."""
    found = [getattr(self, name) for name in ("class_token", "registers") if hasattr(self, name)]
    return [jnp.broadcast_to(token[...].astype(x.dtype), (x.shape[0], *token.shape[1:])) for token in found]

  def _pooled(self, x: Array) -> Array:
    if self.pooling == "cls":
      return x[:, 0]
    patches = x[:, self.extra :]
    return self.pool(patches) if self.pooling == "attention" else jnp.mean(patches, axis=1)


def patches(images: Float[Array, "B h w c"], side: int) -> Float[Array, "B T p"]:
  """Square patches, row by row; each is flattened to side · side · c numbers."""
  B, height, width, channels = images.shape
  tiles = images.reshape(B, height // side, side, width // side, side, channels)
  return tiles.swapaxes(2, 3).reshape(B, -1, side * side * channels)
