"""What sparsemax and entmax share: rows sorted, and the threshold of the support."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

HIDDEN = -1e4  # below every shifted logit that can be in a support, and small enough to square


def ranked(logits: Float[Array, "*B S"], readable: Bool[Array, "*#B S"]) -> tuple[Array, Array, Array]:
  """(logits less the row's largest, the same in descending order, their ranks from 1 as `… S`)."""
  seen = jnp.where(readable, logits, -jnp.inf)
  largest = jax.lax.stop_gradient(jnp.max(seen, axis=-1, keepdims=True))
  z = jnp.where(readable, jnp.maximum(logits - jnp.where(jnp.isfinite(largest), largest, 0.0), HIDDEN), HIDDEN)
  rank = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype).reshape(*[1] * (z.ndim - 1), -1)
  return z, -jnp.sort(-z, axis=-1), rank


def at_support(threshold: Float[Array, "*B S"], inside: Bool[Array, "*B S"]) -> Float[Array, "*B 1"]:
  """The threshold that belongs to the last rank inside the support."""
  size = jnp.maximum(jnp.sum(inside, axis=-1, keepdims=True), 1)
  return jnp.take_along_axis(threshold, size - 1, axis=-1)
