"""Maps between many tokens and a few vectors, small enough to be kept whole: what low-rank variants share."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.families import softmax


def weights(
  q: Float[Array, "#B T N H"],
  k: Float[Array, "#B S K H"],
  scale: float,
  readable: Bool[Array, "#B #T #S"] | None = None,
) -> Float[Array, "B K G T S"]:
  """softmax_s(scale · q_t·k_s) over the readable keys, in float32 or wider; a row without any is all zeros."""
  dtype, (B, T, N, H), K = logits_dtype(q, k), q.shape, k.shape[2]
  grouped = q.reshape(B, T, K, N // K, H).astype(dtype)
  logits = jnp.einsum("btkgh,bskh->bkgts", grouped, k.astype(dtype)) * scale
  seen = jnp.ones((1, 1, 1), bool) if readable is None else readable
  return softmax.weights(logits, seen[:, None, None])
