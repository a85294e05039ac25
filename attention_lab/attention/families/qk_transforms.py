"""Transforms of one token's vectors: L2 and RMS normalisation, sinusoids of the position, rotary embedding."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import logits_dtype

BASE = 10_000.0  # longest wavelength / 2π


def l2_normalize(x: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
  """Vectors of length 1 along the last axis: x / √(‖x‖² + 1e-6), in float32 or wider and then x's dtype."""
  wide = x.astype(logits_dtype(x))
  return (wide * jax.lax.rsqrt(jnp.sum(wide * wide, axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


def rms_norm(x: Float[Array, "*B H"], epsilon: float = 1e-6) -> Float[Array, "*B H"]:
  """Vectors of root mean square 1 along the last axis, without gains: x / √(mean x² + epsilon)."""
  return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)


def frequencies(pairs: int, base: float = BASE, dtype: Any = jnp.float32) -> Float[Array, "P"]:
  """Angular frequencies base^(−c/P), in radians a position, of P = `pairs` pairs of channels c."""
  return base ** (-jnp.arange(pairs, dtype=dtype) / pairs)


def angles(positions: Int[Array, "*B"], pairs: int, like: Array, base: float = BASE) -> Float[Array, "*B P"]:
  """Angles position · base^(−c/P) of P = `pairs` pairs of channels, in radians and in the dtype of `like`."""
  speeds = frequencies(pairs, base, like.dtype)
  return positions[..., None].astype(like.dtype) * speeds.reshape(*[1] * positions.ndim, -1)


def apply_rotary(x: Float[Array, "B T N H"], angles: Float[Array, "#B T P"]) -> Float[Array, "B T N H"]:
  """Rotary position embedding: rotates the pairs of channels (c, c + P) by their angles; channels from 2P on stay.

  Su et al. 2021 (https://arxiv.org/abs/2104.09864, equation 34), where neighbours are paired.
  """
  P = angles.shape[-1]
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  first, second, rest = jnp.split(x, [P, 2 * P], axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
