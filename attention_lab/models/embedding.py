"""What enters a model: vectors of tokens."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from attention_lab.models.config_checks import FLAG
from attention_lab.models.layers import named_key
from attention_lab.models.position_encodings import LearnedTable


class Tokens(nnx.Module):
  """A table N(0, 1/D) of V rows, times √D on the way in, so that the same table serves as the output map (tied)."""

  def __init__(self, vocabulary: int, width: int, *, key: PRNGKeyArray):
    self.width = width
    self.embedding = nnx.Param(width**-0.5 * jax.random.normal(named_key(key, "embedding"), (vocabulary, width)))

  def __call__(self, tokens: Int[Array, "B T *W"], dtype: Any) -> Float[Array, "B T *W D"]:
    """Vectors of unit variance. Tokens outside the table give NaN."""
    rows = jnp.take(self.embedding[...], tokens, axis=0, mode="fill", fill_value=jnp.nan)
    return (rows * self.width**0.5).astype(dtype)


def tables(vocabulary: int, width: int, types: int, *, key: PRNGKeyArray) -> tuple[Tokens, LearnedTable | None]:
  """The tables of tokens and, where there are `types` of them, of types, as `embedded` takes them."""
  kinds = LearnedTable(types, width, key=named_key(key, "types")) if types else None
  return Tokens(vocabulary, width, key=named_key(key, "tokens")), kinds


def embedded(
  table: Tokens, kinds: LearnedTable | None, tokens: Int[Array, "B T *W"], types: Int[Array, "B T"] | None, dtype: Any
) -> Float[Array, "B T D"]:
  """Vectors of tokens, plus those of their types where a model has a table of `kinds`; types None = all 0.

  With W, `T` sentences of at most W words, 0 where one is shorter: a vector for each, as `summed` makes it. Raises
  ValueError for types without a table. Types outside the table give NaN.
  """
  x = table(tokens, dtype)
  x = summed(x, tokens > 0) if tokens.ndim == 3 else x
  if kinds is None:
    if types is not None:
      raise ValueError(f"types were given to a model without a table of them; give {FLAG}.types=2, or leave them out")
    return x
  return x + kinds(jnp.zeros(tokens.shape[:2], jnp.int32) if types is None else types).astype(x.dtype)


def summed(x: Float[Array, "B T W D"], present: Bool[Array, "B T W"]) -> Float[Array, "B T D"]:
  """One vector for each sentence: the sum of its J words, the j-th times (1 − j/J) − (d/D)(1 − 2j/J) in dimension d.

  j and d count from 1. The position encoding of Sukhbaatar et al. 2015 (https://arxiv.org/abs/1503.08895, section 4.1),
  by which the order of words is not lost. Words stand in front; zeros where there is none.
  """
  count = jnp.maximum(jnp.sum(present, axis=2, keepdims=True), 1)
  share = (jnp.arange(x.shape[2]) + 1)[None, None, :] / count  # j/J
  depth = (jnp.arange(x.shape[3]) + 1)[None, None, None, :] / x.shape[3]
  weights = (1 - share)[..., None] - depth * (1 - 2 * share)[..., None]
  return jnp.sum(jnp.where(present[..., None], x * weights.astype(x.dtype), jnp.zeros_like(x)), axis=2)
