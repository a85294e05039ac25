"""The softmax over readable keys, on one dense block of logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.engines.chunked import Block, combine


def weights(logits: Float[Array, "*B T S"], readable: Bool[Array, "*#B #T #S"]) -> Float[Array, "*B T S"]:
  """Softmax over the readable keys; a row without any is all zeros."""
  numerators, total = _exponentials(logits, readable)
  return numerators / total


def average(
  logits: Float[Array, "C N T S"], block: Block, sink: Float[Array, "C N 1 1"] | None = None
) -> Float[Array, "C N T V"]:
  """Softmax-weighted values of a block; the division comes after the product with the values, being cheaper there.

  sink: a logit that joins the normaliser and has no value.
  """
  numerators, total = _exponentials(logits, block.readable, sink)
  return combine(numerators, block) / total


def scale(given: float | None, q: Float[Array, "... H"]) -> float:
  """The factor of the logits: what is given, else 1/√H."""
  return q.shape[-1] ** -0.5 if given is None else given


def soft_cap(logits: Float[Array, "..."], cap: float | None) -> Float[Array, "..."]:
  """Cap · tanh(logits / cap), which keeps logits within ±cap; None leaves them."""
  return logits if cap is None else cap * jnp.tanh(logits / cap)


def _exponentials(logits: Array, readable: Array, sink: Array | None = None) -> tuple[Array, Array]:
  logits = jnp.where(readable, logits, -jnp.inf)
  largest = jnp.max(logits, axis=-1, keepdims=True)
  largest = jax.lax.stop_gradient(largest if sink is None else jnp.maximum(largest, sink))
  largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
  numerators = jnp.exp(logits - largest)
  total = jnp.sum(numerators, axis=-1, keepdims=True)
  total = total if sink is None else total + jnp.exp(sink - largest)
  return numerators, jnp.where(total == 0.0, 1.0, total)
