"""Vectors brought to one length."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention.base import logits_dtype


def unit(x: Float[Array, "*B H"]) -> Float[Array, "*B H"]:
  """Length 1 along the last axis: x / √(‖x‖² + 1e-6), in float32 or wider and then x's dtype."""
  wide = x.astype(logits_dtype(x))
  return (wide * jax.lax.rsqrt(jnp.sum(wide * wide, axis=-1, keepdims=True) + 1e-6)).astype(x.dtype)


def root_mean_square(x: Float[Array, "*B H"], epsilon: float = 1e-6) -> Float[Array, "*B H"]:
  """Root mean square 1 along the last axis: x / √(mean x² + epsilon)."""
  return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon)
