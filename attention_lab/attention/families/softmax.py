"""The softmax over readable keys on dense logits: of one block of queries, or of a map small enough to keep whole."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import logits_dtype
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


def attention_weights(
  q: Float[Array, "#B T N H"],
  k: Float[Array, "#B S K H"],
  scale: float,
  readable: Bool[Array, "#B #T #S"] | None = None,
) -> Float[Array, "B K G T S"]:
  """The whole map softmax_s(scale · q_t·k_s) over the readable keys, in float32 or wider: for few queries or few keys.

  A row without a readable key is all zeros; readable None: every key.
  """
  dtype, (B, T, N, H), K = logits_dtype(q, k), q.shape, k.shape[2]
  grouped = q.reshape(B, T, K, N // K, H).astype(dtype)
  logits = jnp.einsum("btkgh,bskh->bkgts", grouped, k.astype(dtype)) * scale
  seen = jnp.ones((1, 1, 1), bool) if readable is None else readable
  return weights(logits, seen[:, None, None])


def scale(factor: float | None, q: Float[Array, "... H"]) -> float:
  """The factor of the logits: `factor`, or 1/√H where that is None."""
  return q.shape[-1] ** -0.5 if factor is None else factor


def soft_cap(logits: Float[Array, "..."], cap: float | None) -> Float[Array, "..."]:
  """Logits within ±cap: cap · tanh(logits / cap); None leaves them."""
  return logits if cap is None else cap * jnp.tanh(logits / cap)


def _exponentials(logits: Array, readable: Array, sink: Array | None = None) -> tuple[Array, Array]:
  """Numerators exp(logits − row maximum), 0 where not readable, and the rows' normalisers, 1 for a row without keys."""
  logits = jnp.where(readable, logits, -jnp.inf)
  largest = jnp.max(logits, axis=-1, keepdims=True)
  largest = jax.lax.stop_gradient(largest if sink is None else jnp.maximum(largest, sink))
  largest = jnp.where(jnp.isfinite(largest), largest, 0.0)
  numerators = jnp.exp(logits - largest)
  total = jnp.sum(numerators, axis=-1, keepdims=True)
  total = total if sink is None else total + jnp.exp(sink - largest)
  return numerators, jnp.where(total == 0.0, 1.0, total)
