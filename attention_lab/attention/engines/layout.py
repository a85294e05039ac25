"""Heads and chunks: how arrays `B T N H` are cut for a loop over time, and how heads come to the front inside of it."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def chunks(tree: Any, size: int) -> Any:
  """Arrays `B T …` as `T/size B size …`, filled up with zeros."""

  def cut(array: Array) -> Array:
    B, T = array.shape[:2]
    array = jnp.pad(array, ((0, 0), (0, -T % size), *((0, 0) for _ in array.shape[2:]))) if T % size else array
    return jnp.moveaxis(array.reshape(B, -1, size, *array.shape[2:]), 1, 0)

  return jax.tree.map(cut, tree)


def joined(array: Float[Array, "L B C *_"], T: int) -> Float[Array, "B T *_"]:
  """The inverse of `chunks` for one array, cut to T."""
  array = jnp.moveaxis(array, 0, 1)
  return array.reshape(array.shape[0], -1, *array.shape[3:])[:, :T]


def heads_first(array: Float[Array, "B T N H"], kinds: int) -> Float[Array, "B K G T H"]:
  """Query heads as groups of their key heads."""
  B, T, N, H = array.shape
  return jnp.transpose(array.reshape(B, T, kinds, N // kinds, H), (0, 2, 3, 1, 4))


def heads_last(out: Float[Array, "B K G T V"], q_valid: Bool[Array, "#B T"] | None = None) -> Float[Array, "B T N V"]:
  """Key heads and their groups as query heads; zeros where the query is padding."""
  out = jnp.moveaxis(out, 3, 1)
  out = out.reshape(*out.shape[:2], -1, out.shape[-1])
  return out if q_valid is None else jnp.where(q_valid[:, :, None, None], out, 0.0)
