"""What enters a model: vectors of tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.models import keys
from attention_lab.models.codes import Table
from attention_lab.models.dimensions import FLAG


class Tokens(nnx.Module):
  """A table N(0, 1/D) of V rows, times √D on the way in, so that the same table serves as the output map (tied)."""

  def __init__(self, vocabulary: int, width: int, *, key: PRNGKeyArray):
    self.width = width
    self.embedding = nnx.Param(width**-0.5 * jax.random.normal(keys.child(key, "embedding"), (vocabulary, width)))

  def __call__(self, tokens: Int[Array, "B T"], dtype: Any) -> Float[Array, "B T D"]:
    """Vectors of unit variance. Tokens outside the table give NaN."""
    rows = jnp.take(self.embedding[...], tokens, axis=0, mode="fill", fill_value=jnp.nan)
    return (rows * self.width**0.5).astype(dtype)


def tables(vocabulary: int, width: int, types: int, *, key: PRNGKeyArray) -> tuple[Tokens, Table | None]:
  """The tables of tokens and, where there are `types` of them, of types, as `embedded` takes them."""
  kinds = Table(types, width, key=keys.child(key, "types")) if types else None
  return Tokens(vocabulary, width, key=keys.child(key, "tokens")), kinds


def embedded(
  words: Tokens, kinds: Table | None, tokens: Int[Array, "B T"], types: Int[Array, "B T"] | None, dtype: Any
) -> Float[Array, "B T D"]:
  """Vectors of tokens, plus those of their types where a model has a table of `kinds`; types None = all 0.

  Raises ValueError for types without a table. Types outside the table give NaN.
  """
  x = words(tokens, dtype)
  if kinds is None:
    if types is not None:
      raise ValueError(f"types were given to a model without a table of them; give {FLAG}.types=2, or leave them out")
    return x
  return x + kinds(jnp.zeros_like(tokens) if types is None else types).astype(x.dtype)
