"""Which keys of a row have the largest logits."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int


def largest(logits: Float[Array, "C N T S"], readable: Bool[Array, "C #N T S"], count: int) -> Bool[Array, "C N T S"]:
  """The readable keys with the `count` largest logits of each row; ties with the last of them are kept."""
  return _best(logits, readable, count)[0]


def indices(
  logits: Float[Array, "*R S"], readable: Bool[Array, "*#R S"], count: int
) -> tuple[Int[Array, "*R M"], Bool[Array, "*R"]]:
  """Where the `count` largest readable logits of each row are, and whether others tie with the last of them.

  M is `count`, or S if that is less; a row with fewer readable keys is filled up with −1.
  """
  kept, best, places = _best(logits, readable, count)
  return jnp.where(best > -jnp.inf, places, -1), jnp.sum(kept, axis=-1) > best.shape[-1]


def _best(logits: Array, readable: Array, count: int) -> tuple[Array, Array, Array]:
  """Which are kept, with ties; and the `count` largest, with their places. Nothing here has a gradient."""
  seen = jax.lax.stop_gradient(jnp.where(readable, logits, -jnp.inf))
  best, places = jax.lax.top_k(seen, min(count, logits.shape[-1]))
  least = jnp.min(best, axis=-1, keepdims=True)  # of a slice, the compiler for CPUs makes a sort of whole rows
  return readable & (seen >= least), best, places
