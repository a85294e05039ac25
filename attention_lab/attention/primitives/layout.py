"""Key heads and their groups of query heads, and the heads that a caller sees."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def heads_last(out: Float[Array, "B K G T V"], q_valid: Bool[Array, "#B T"] | None = None) -> Float[Array, "B T N V"]:
  """Key heads and their groups as query heads; zeros where the query is padding."""
  out = jnp.moveaxis(out, 3, 1)
  out = out.reshape(*out.shape[:2], -1, out.shape[-1])
  return out if q_valid is None else jnp.where(q_valid[:, :, None, None], out, 0.0)
