"""Norms over a token's channels, computed in float32."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from attention_lab.models.config_checks import FLAG, NORMS, choose

EPSILON = 1e-6  # added to the variance, or to the mean square


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
  return {"layer": LayerNorm, "rms": RmsNorm}[choose(f"{FLAG}.norm", kind, NORMS)](width)
