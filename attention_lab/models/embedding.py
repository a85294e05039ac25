"""What enters a model: vectors of tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.models import keys


class Tokens(nnx.Module):
  """A table N(0, 1/D) of V rows, times √D on the way in, so that the same table serves as the output map (tied)."""

  def __init__(self, vocabulary: int, width: int, *, key: PRNGKeyArray):
    self.width = width
    self.embedding = nnx.Param(width**-0.5 * jax.random.normal(keys.child(key, "embedding"), (vocabulary, width)))

  def __call__(self, tokens: Int[Array, "B T"], dtype: Any) -> Float[Array, "B T D"]:
    """Vectors of unit variance. Tokens outside the table give NaN."""
    rows = jnp.take(self.embedding[...], tokens, axis=0, mode="fill", fill_value=jnp.nan)
    return (rows * self.width**0.5).astype(dtype)
