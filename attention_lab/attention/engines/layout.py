"""Layout of arrays `B T N H` in loops over time: chunks of tokens in front, and heads in front within a chunk."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def chunks(tree: Any, size: int) -> Any:
  """Arrays `B T …` cut into chunks of `size` tokens for `jax.lax.scan`: `L B size …`, the last padded with zeros."""

  def cut(array: Array) -> Array:
    B, T = array.shape[:2]
    array = jnp.pad(array, ((0, 0), (0, -T % size), *((0, 0) for _ in array.shape[2:]))) if T % size else array
    return jnp.moveaxis(array.reshape(B, -1, size, *array.shape[2:]), 1, 0)

  return jax.tree.map(cut, tree)


def joined(array: Float[Array, "L B C *_"], T: int) -> Float[Array, "B T *_"]:
  """The T tokens of L chunks, without the padding of the last: the inverse of `chunks` for one array."""
  array = jnp.moveaxis(array, 0, 1)
  return array.reshape(array.shape[0], -1, *array.shape[3:])[:, :T]


def heads_first(array: Float[Array, "B T N H"], kv_heads: int) -> Float[Array, "B K G T H"]:
  """Queries with their heads in front: K = `kv_heads` key heads with G = N/K query heads each."""
  B, T, N, H = array.shape
  return jnp.transpose(array.reshape(B, T, kv_heads, N // kv_heads, H), (0, 2, 3, 1, 4))


def heads_last(out: Float[Array, "B K G T V"], q_valid: Bool[Array, "#B T"] | None = None) -> Float[Array, "B T N V"]:
  """Outputs with their heads behind the tokens, N = K·G: the inverse of `heads_first`.

  q_valid: queries that are tokens; the others, which are padding, get zeros. None: all are.
  """
  out = jnp.moveaxis(out, 3, 1)
  out = out.reshape(*out.shape[:2], -1, out.shape[-1])
  return out if q_valid is None else jnp.where(q_valid[:, :, None, None], out, 0.0)
