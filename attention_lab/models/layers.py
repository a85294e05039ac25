"""What layers are made of: keys by name, linear maps, norms, token-wise MLPs, dropout.

Parameters are float32; computation runs in the dtype that the caller's x has.
"""

import math
import zlib
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from attention_lab.models.config_checks import FLAG, MLPS, NORMS, choose

EPSILON = 1e-6  # added to the variance, or to the mean square, in a norm


@overload
def named_key(key: PRNGKeyArray, name: str) -> PRNGKeyArray: ...


@overload
def named_key(key: None, name: str) -> None: ...


@overload
def named_key(key: PRNGKeyArray | None, name: str) -> PRNGKeyArray | None: ...


def named_key(key: PRNGKeyArray | None, name: str) -> PRNGKeyArray | None:
  """The random key of the part `name`; None, which means no randomness, stays None.

  A parameter's initial value so depends on its path and on nothing else in the model. Were keys split in order, one
  extra parameter of a variant would move every later initial value, and no two variants could be compared from the same
  start.
  """
  return None if key is None else jax.random.fold_in(key, zlib.crc32(name.encode()))


class Output(NamedTuple):
  """What a model gives back; losses and statistics are scalars by name."""

  logits: Float[Array, "B *T C"]
  losses: dict[str, Array]  # auxiliary losses of the variants, summed over layers
  stats: dict[str, Array]  # "layer_0/entropy", …


class Linear(nnx.Module):
  """y = x·W + b over the last `len(inputs)` axes of x; W starts as N(0, gain² / fan-in), b as 0."""

  def __init__(self, inputs: tuple[int, ...], outputs: tuple[int, ...], *, key: PRNGKeyArray, gain: float = 1.0):
    self.inputs, self.outputs = inputs, outputs
    std = gain * math.prod(inputs) ** -0.5
    self.kernel = nnx.Param(std * jax.random.normal(named_key(key, "kernel"), (*inputs, *outputs)))
    self.bias = nnx.Param(jnp.zeros(outputs))

  def __call__(self, x: Float[Array, "..."], dtype: Any = None) -> Float[Array, "..."]:
    """One flat matrix product, the cheapest form on CPU. dtype: of the output; None = that of x."""
    dtype = dtype or x.dtype
    lead = x.shape[: x.ndim - len(self.inputs)]
    kernel = self.kernel[...].reshape(math.prod(self.inputs), -1).astype(x.dtype)
    y = jnp.dot(x.reshape(-1, math.prod(self.inputs)), kernel, preferred_element_type=dtype)
    return (y + self.bias[...].reshape(1, -1).astype(dtype)).reshape(*lead, *self.outputs)


class LayerNorm(nnx.Module):
  """Zero mean and unit variance over the last axis, then a scale and a bias (Ba et al. 2016)."""

  def __init__(self, width: int):
    self.scale = nnx.Param(jnp.ones(width))
    self.bias = nnx.Param(jnp.zeros(width))

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    centred = x.astype(jnp.float32)
    centred = centred - jnp.mean(centred, axis=-1, keepdims=True)
    scale = jax.lax.rsqrt(jnp.mean(centred * centred, axis=-1, keepdims=True) + EPSILON)
    return (centred * scale * self.scale[...][None, None] + self.bias[...][None, None]).astype(x.dtype)


class RmsNorm(nnx.Module):
  """Unit mean square over the last axis, then a scale (Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467)."""

  def __init__(self, width: int):
    self.scale = nnx.Param(jnp.ones(width))

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    wide = x.astype(jnp.float32)
    scale = jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + EPSILON)
    return (wide * scale * self.scale[...][None, None]).astype(x.dtype)


def norm(kind: str, width: int) -> LayerNorm | RmsNorm:
  """The norm that `--config.model.norm` names. Raises ValueError for an unknown one."""
  return LayerNorm(width) if choose(f"{FLAG}.norm", kind, NORMS) == "layer" else RmsNorm(width)


class Mlp(nnx.Module):
  """Two linear maps of D to F and back, with a GELU (tanh form) between them."""

  def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0):
    self.up = Linear((width,), (hidden,), key=named_key(key, "up"))
    self.down = Linear((hidden,), (width,), key=named_key(key, "down"), gain=gain)

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.down(jax.nn.gelu(self.up(x), approximate=True))


class SwigluMlp(nnx.Module):
  """down(silu(gate(x)) · up(x)): Shazeer 2020 (https://arxiv.org/abs/2002.05202, equation 6), here with biases.

  Three maps in place of two: at the same F half as many parameters again. With 2/3 of F, which is the paper's choice
  and is never made silently, there are as many as in `Mlp`.
  """

  def __init__(self, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0):
    self.gate = Linear((width,), (hidden,), key=named_key(key, "gate"))
    self.up = Linear((width,), (hidden,), key=named_key(key, "up"))
    self.down = Linear((hidden,), (width,), key=named_key(key, "down"), gain=gain)

  def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
    return self.down(jax.nn.silu(self.gate(x)) * self.up(x))


def mlp(kind: str, width: int, hidden: int, *, key: PRNGKeyArray, gain: float = 1.0) -> Mlp | SwigluMlp:
  """The map that `--config.model.mlp` names, with `hidden` = F. Raises ValueError for an unknown one."""
  if choose(f"{FLAG}.mlp", kind, MLPS) == "gelu":
    return Mlp(width, hidden, key=key, gain=gain)
  return SwigluMlp(width, hidden, key=key, gain=gain)


def dropout(x: Float[Array, "..."], rate: float, key: PRNGKeyArray | None) -> Float[Array, "..."]:
  """Inverted dropout: zeros with probability `rate`, the rest scaled up; without a key, x."""
  if key is None or rate == 0.0:
    return x
  return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), jnp.zeros_like(x))
