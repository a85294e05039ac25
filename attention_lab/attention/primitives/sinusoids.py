"""Positions as sines and cosines: codes of positions, and channels that are turned by them."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

BASE = 10_000.0  # longest wavelength / 2π


def angles(positions: Int[Array, "*B"], pairs: int, like: Array, base: float = BASE) -> Float[Array, "*B P"]:
  """Position · base^(−c/P) for c < P pairs of channels, in the dtype of `like`."""
  frequencies = base ** (-jnp.arange(pairs, dtype=like.dtype) / pairs)
  return positions[..., None].astype(like.dtype) * frequencies.reshape(*[1] * positions.ndim, -1)


def turn(x: Float[Array, "B T N H"], positions: Int[Array, "#B T"], base: float = BASE) -> Float[Array, "B T N H"]:
  """Turns the pairs of channels (c, c + H/2) by their angles: rotary position embedding; H is even.

  Su et al. 2021 (https://arxiv.org/abs/2104.09864, equation 34), where neighbours are paired.
  """
  turned = angles(positions, x.shape[-1] // 2, x, base)[:, :, None]
  first, second = jnp.split(x, 2, axis=-1)
  cos, sin = jnp.cos(turned), jnp.sin(turned)
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
