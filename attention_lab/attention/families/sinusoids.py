"""Positions as sines and cosines: codes of positions, and channels that are turned by them."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BASE = 10_000.0  # longest wavelength / 2π


def frequencies(pairs: int, base: float = BASE, dtype: Any = jnp.float32) -> Float[Array, "P"]:
  """base^(−c/P) for c < P pairs of channels."""
  return base ** (-jnp.arange(pairs, dtype=dtype) / pairs)


def angles(positions: Int[Array, "*B"], pairs: int, like: Array, base: float = BASE) -> Float[Array, "*B P"]:
  """Position · base^(−c/P), in the dtype of `like`."""
  speeds = frequencies(pairs, base, like.dtype)
  return positions[..., None].astype(like.dtype) * speeds.reshape(*[1] * positions.ndim, -1)


def turn(x: Float[Array, "B T N H"], angles: Float[Array, "#B T P"]) -> Float[Array, "B T N H"]:
  """Turns the pairs of channels (c, c + P) by their angles: rotary position embedding; channels from 2P on stay.

  Su et al. 2021 (https://arxiv.org/abs/2104.09864, equation 34), where neighbours are paired.
  """
  P = angles.shape[-1]
  cos, sin = jnp.cos(angles)[:, :, None], jnp.sin(angles)[:, :, None]
  first, second, rest = jnp.split(x, [P, 2 * P], axis=-1)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin, rest], axis=-1)
