"""Rows of weights with a sparse support: the top k of a row, and the support of sparsemax and entmax."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

NOT_READABLE = -1e4  # shifted logit of a hidden key: below any support's threshold, and small enough to square


def top_k_mask(logits: Float[Array, "C N T S"], readable: Bool[Array, "C #N T S"], k: int) -> Bool[Array, "C N T S"]:
  """The readable keys with the `k` largest logits of each row; keys that tie with the last of them are kept too."""
  return _top_k(logits, readable, k)[0]


def top_k_indices(
  logits: Float[Array, "*R S"], readable: Bool[Array, "*#R S"], k: int
) -> tuple[Int[Array, "*R M"], Bool[Array, "*R"]]:
  """Indices of the `k` largest readable logits of each row, and whether further keys tie with the last of them.

  M = min(k, S); a row with fewer readable keys is filled up with −1.
  """
  selected, values, indices = _top_k(logits, readable, k)
  return jnp.where(values > -jnp.inf, indices, -1), jnp.sum(selected, axis=-1) > values.shape[-1]


def sorted_logits(logits: Float[Array, "*B S"], readable: Bool[Array, "*#B S"]) -> tuple[Array, Array, Array]:
  """(logits less the row's largest, the same in descending order, their ranks from 1), each `… S`."""
  seen = jnp.where(readable, logits, -jnp.inf)
  largest = jax.lax.stop_gradient(jnp.max(seen, axis=-1, keepdims=True))
  shifted = jnp.maximum(logits - jnp.where(jnp.isfinite(largest), largest, 0.0), NOT_READABLE)
  z = jnp.where(readable, shifted, NOT_READABLE)
  rank = jnp.arange(1, z.shape[-1] + 1, dtype=z.dtype).reshape(*[1] * (z.ndim - 1), -1)
  return z, -jnp.sort(-z, axis=-1), rank


def support_threshold(threshold: Float[Array, "*B S"], inside: Bool[Array, "*B S"]) -> Float[Array, "*B 1"]:
  """The threshold of each row: that of the last rank inside the support, of the thresholds of all ranks."""
  size = jnp.maximum(jnp.sum(inside, axis=-1, keepdims=True), 1)
  return jnp.take_along_axis(threshold, size - 1, axis=-1)


def _top_k(logits: Array, readable: Array, k: int) -> tuple[Array, Array, Array]:
  """The mask of the selected keys, ties included; and the k largest logits with their indices. Without gradients."""
  seen = jax.lax.stop_gradient(jnp.where(readable, logits, -jnp.inf))
  values, indices = jax.lax.top_k(seen, min(k, logits.shape[-1]))
  least = jnp.min(values, axis=-1, keepdims=True)  # a slice becomes a sort of whole rows on a CPU
  return readable & (seen >= least), values, indices
