"""The Vision Transformer: an image as a row of patches.

Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, section 3.1 and table 1); Ti and S are those of Steiner et
al. 2022 (https://arxiv.org/abs/2106.10270, table 2). Registers: Darcet et al. 2024 (https://arxiv.org/abs/2309.16588).
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.models.functional import Undecayed
from attention_lab.models.layers import Linear, Output, named_key
from attention_lab.models.pooling import AttentionPooling
from attention_lab.models.position_encodings import INIT_STD
from attention_lab.models.transformer import Transformer
from attention_lab.models.vision import VisionConfig, layout, sized


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
    encoder_key = named_key(key, "encoder")
    self.encoder = Transformer(config, self.max_len, key=encoder_key, grid=self.grid, extra=self.extra, mesh=mesh)
    self.patches = Linear((self.patch**2 * image[2],), (config.width,), key=named_key(key, "patches"))
    if self.pooling == "cls":
      self.class_token = Undecayed(jnp.zeros((1, 1, config.width)))
    if config.registers:
      start = jax.random.normal(named_key(key, "registers"), (1, config.registers, config.width))
      self.registers = Undecayed(INIT_STD * start)
    if self.pooling == "attention":
      self.pool = AttentionPooling(config, key=named_key(key, "pool"), mesh=mesh)
    self.head = Linear((config.width,), (classes,), key=named_key(key, "head"))

  def __call__(self, images: Float[Array, "B h w c"], *, key: PRNGKeyArray | None = None) -> Output:
    """Logits `B C` in float32, of pixels in [0, 1], which are brought to [−1, 1]."""
    x = self.patches(patches(2.0 * images - 1.0, self.patch).astype(self.encoder.dtype))
    x = jnp.concatenate([*self._leading(x), x], axis=1) if self.extra else x
    positions = Positions(grid=self.grid, extra=self.extra)
    hidden = self.encoder(x, mask=FULL, positions=positions, key=named_key(key, "encoder"))
    return hidden._replace(logits=self.head(self._pooled(hidden.logits), jnp.float32))

  def _leading(self, x: Array) -> list[Array]:
    """The tokens before the patches x."""
    tokens = [getattr(self, name) for name in ("class_token", "registers") if hasattr(self, name)]
    return [jnp.broadcast_to(token[...].astype(x.dtype), (x.shape[0], *token.shape[1:])) for token in tokens]

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
