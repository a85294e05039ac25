"""Which keys of a row have the largest logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def largest(logits: Float[Array, "C N T S"], readable: Bool[Array, "C #N T S"], count: int) -> Bool[Array, "C N T S"]:
  """The readable keys with the `count` largest logits of each row; ties with the last of them are kept."""
  seen = jax.lax.stop_gradient(jnp.where(readable, logits, -jnp.inf))
  least = jax.lax.top_k(seen, min(count, logits.shape[-1]))[0][..., -1:]
  return readable & (seen >= least)
