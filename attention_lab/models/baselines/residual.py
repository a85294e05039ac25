"""Residual networks for small images, and three published ways to let a block see beyond its window.

He et al. 2016 (https://arxiv.org/abs/1512.03385, section 4.2): a 3×3 convolution, three stages of `config.layers`
blocks, D, 2D and 4D wide, each stage after the first at half the resolution, identity shortcuts filled up with zeros,
the mean over places, a linear map. Departure: norms are over groups of channels within one image (Wu and He 2018,
https://arxiv.org/abs/1803.08494) and not over the batch, so that a model is its parameters and nothing else.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models import config_checks
from attention_lab.models.baselines import ATTENTION, check
from attention_lab.models.baselines.convolution import Convolution, largest
from attention_lab.models.layers import Linear, Output, dropout, named_key
from attention_lab.models.multi_head_attention import MultiHeadAttention
from attention_lab.models.vision import VisionConfig

BLOCKS = ("plain", "squeeze_excitation", "cbam", "non_local")
STAGES = 3
CHANNELS = 8  # in a group of the norm, where they divide the width
REDUCTION, FEWEST = 16, 4  # of the channels in the hidden layer of a gate, and how many it has at least
EPSILON = 1e-5  # added to the variance in a norm


class GroupNorm(nnx.Module):
  """Zero mean and unit variance over the places and channels of each group, then a scale and a bias; in float32."""

  def __init__(self, channels: int, *, start: float = 1.0):
    self.groups = channels // CHANNELS if channels % CHANNELS == 0 else 1
    self.scale = nnx.Param(jnp.full(channels, start))
    self.bias = nnx.Param(jnp.zeros(channels))

  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    B, h, w, C = x.shape
    grouped = x.astype(jnp.float32).reshape(B, h * w, self.groups, -1)
    grouped = grouped - jnp.mean(grouped, axis=(1, 3), keepdims=True)
    grouped = grouped * jax.lax.rsqrt(jnp.mean(grouped * grouped, axis=(1, 3), keepdims=True) + EPSILON)
    scale, bias = (vector[...].reshape(1, 1, 1, C) for vector in (self.scale, self.bias))
    return (grouped.reshape(B, h, w, C) * scale + bias).astype(x.dtype)


class SqueezeExcitation(nnx.Module):
  """Each channel times σ(W₂·relu(W₁·m)), m the channels' means (Hu et al. 2018, arXiv 1709.01507, section 3)."""

  def __init__(self, channels: int, *, key: PRNGKeyArray):
    hidden = max(channels // REDUCTION, FEWEST)
    self.squeeze = Linear((channels,), (hidden,), key=named_key(key, "squeeze"))
    self.excite = Linear((hidden,), (channels,), key=named_key(key, "excite"))

  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    return x * jax.nn.sigmoid(self.logits(jnp.mean(x, axis=(1, 2))))[:, None, None]

  def logits(self, summary: Float[Array, "B C"]) -> Float[Array, "B C"]:
    """The gate's logits from one number for each channel."""
    return self.excite(jax.nn.relu(self.squeeze(summary)))


class Cbam(nnx.Module):
  """A gate on channels, from their means and maxima, then one on places (Woo et al. 2018, arXiv 1807.06521, section 3).

  Channels: σ(f(mean) + f(max)), f the two maps of squeeze-excitation. Places: σ of a 7×7 convolution of the mean and
  the maximum over channels.
  """

  def __init__(self, channels: int, *, key: PRNGKeyArray):
    self.channels = SqueezeExcitation(channels, key=named_key(key, "channels"))
    self.places = Convolution((7, 7), 2, 1, key=named_key(key, "places"))

  def __call__(self, x: Float[Array, "B h w C"]) -> Float[Array, "B h w C"]:
    B, h, w, C = x.shape
    row = x.reshape(B, h * w, C)
    gates = self.channels.logits(jnp.mean(row, axis=1)) + self.channels.logits(largest(row))
    row = row * jax.nn.sigmoid(gates)[:, None]
    summary = jnp.stack([jnp.mean(row, axis=2), largest(jnp.swapaxes(row, 1, 2))], axis=2).reshape(B, h, w, 2)
    return row.reshape(x.shape) * jax.nn.sigmoid(self.places(summary))


class NonLocal(nnx.Module):
  """x + norm(attention(x)) over all places of the grid (Wang et al. 2018, https://arxiv.org/abs/1711.07971, section 3).

  The norm's scale starts at 0, so that the block starts as the identity (their section 4.1). The variant may be any
  that reads a sequence, or a grid. Departures: heads, which together are as wide as x and not half of it.
  """

  def __init__(
    self, config: ModelConfig, layer: int, grid: tuple[int, int], channels: int, *, key: PRNGKeyArray, mesh: Mesh | None
  ):
    config = dataclasses.replace(config, width=channels, layers=layer + 1)
    dims, variant = config_checks.dims(config, grid[0] * grid[1]), config_checks.variants(config)[layer]
    self.grid = grid
    self.attention = MultiHeadAttention(variant, dims, key=named_key(key, "attention"), mesh=mesh)
    self.norm = GroupNorm(channels, start=0.0)

  def __call__(self, x: Float[Array, "B h w C"], key: PRNGKeyArray | None = None) -> AttentionOutput:
    row = x.reshape(x.shape[0], -1, x.shape[3])
    attended = self.attention(row, mask=FULL, positions=Positions(grid=self.grid), key=key)
    return attended._replace(out=x + self.norm(attended.out.reshape(x.shape)))


class Block(nnx.Module):
  """relu(shortcut(x) + gate(norm(conv(relu(norm(conv(x)))))))."""

  def __init__(self, inputs: int, channels: int, stride: int, gate: str, *, key: PRNGKeyArray):
    self.stride, self.fill = stride, channels - inputs
    first, second = (named_key(key, name) for name in ("first", "second"))
    gain = 2.0**0.5  # after a ReLU (He et al. 2015)
    self.first = Convolution((3, 3), inputs, channels, key=first, stride=stride, gain=gain, bias=False)
    self.first_norm = GroupNorm(channels)
    self.second = Convolution((3, 3), channels, channels, key=second, gain=gain, bias=False)
    self.second_norm = GroupNorm(channels)
    kind = {"squeeze_excitation": SqueezeExcitation, "cbam": Cbam}.get(gate)
    self.gate = None if kind is None else kind(channels, key=named_key(key, "gate"))

  def __call__(self, x: Float[Array, "B h w I"]) -> Float[Array, "B _ _ C"]:
    y = self.second_norm(self.second(jax.nn.relu(self.first_norm(self.first(x)))))
    y = y if self.gate is None else self.gate(y)
    shortcut = x[:, :: self.stride, :: self.stride]
    return jax.nn.relu(y + jnp.pad(shortcut, ((0, 0), (0, 0), (0, 0), (0, self.fill))))


class ResNet(nnx.Module):
  """Logits over C classes of images `B h w c`.

  Of the config it reads, besides what every baseline does: layers (blocks of a stage), block, and with non_local, which
  puts a `NonLocal` after the second and after the third stage, the attention, its heads and their width. It holds
  parameters only: no running statistics. Raises ValueError for fields that it does not read and that are not default.
  """

  def __init__(
    self,
    config: VisionConfig,
    image: tuple[int, int, int],
    classes: int,
    *,
    key: PRNGKeyArray,
    mesh: Mesh | None = None,
  ):
    attends = config_checks.choose(f"{config_checks.FLAG}.block", config.block, BLOCKS) == "non_local"
    check(config, f"resnet with block={config.block}", {"layers", "block"} | (ATTENTION if attends else set()))
    self.dropout, self.dtype = config.dropout, config_checks.dtype(config)
    width, gate = config.width, "" if attends else config.block
    self.stem = Convolution((3, 3), image[2], width, key=named_key(key, "stem"), bias=False)
    self.stem_norm = GroupNorm(width)
    stages, readers, (height, wide) = [], {}, image[:2]
    for stage in range(STAGES):
      stage_key, channels = named_key(named_key(key, "stages"), str(stage)), width << stage
      stages.append(nnx.List(_stage(channels, config.layers, stage, gate, stage_key)))
      if stage:
        height, wide = -(-height // 2), -(-wide // 2)
        if attends:
          reader = NonLocal(
            config, stage - 1, (height, wide), channels, key=named_key(stage_key, "non_local"), mesh=mesh
          )
          readers[str(stage)] = reader
    self.stages, self.non_local = nnx.List(stages), nnx.Dict(readers)
    self.head = Linear((width << (STAGES - 1),), (classes,), key=named_key(key, "head"))

  def __call__(self, images: Float[Array, "B h w c"], *, key: PRNGKeyArray | None = None) -> Output:
    """Logits `B C` in float32, of pixels in [0, 1], which are brought to [−1, 1]."""
    x = jax.nn.relu(self.stem_norm(self.stem((2.0 * images - 1.0).astype(self.dtype))))
    losses: dict[str, Array] = {}
    stats: dict[str, Array] = {}
    for number, stage in enumerate(self.stages):
      for block in stage:
        x = block(x)
      if str(number) in self.non_local:
        x, block_losses, measured = self.non_local[str(number)](x, named_key(key, f"non_local_{number}"))
        losses |= {name: losses[name] + value if name in losses else value for name, value in block_losses.items()}
        stats |= {f"layer_{number - 1}/{name}": value for name, value in measured.items()}
    pooled = dropout(jnp.mean(x, axis=(1, 2)), self.dropout, named_key(key, "dropout"))
    return Output(self.head(pooled, jnp.float32), losses, stats)


def _stage(channels: int, blocks: int, stage: int, gate: str, key: PRNGKeyArray) -> list[Block]:
  """The blocks of a stage; the first of a later one halves the resolution and doubles the width."""
  narrow, stride = (channels // 2, 2) if stage else (channels, 1)
  return [
    Block(channels if i else narrow, channels, 1 if i else stride, gate, key=named_key(key, str(i)))
    for i in range(blocks)
  ]
