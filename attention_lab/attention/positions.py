"""Where queries and keys stand in their sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@functools.partial(jax.tree_util.register_dataclass, data_fields=("q", "k"), meta_fields=("grid", "extra"))
@dataclasses.dataclass(frozen=True)
class Positions:
  """Positions of queries and keys; patterns are functions of these and never of array indices.

  q: `#B T`, k: `#B S`; None stands for 0, 1, 2, …, which is known while tracing, so that engines can skip blocks.
  A key at position −1 is an empty slot. Positions restart in each segment.
  grid: the 2-D (or 3-D) shape that tokens were flattened from; extra: tokens (class, register) that precede the grid.
  """

  q: Int[Array, "#B T"] | None = None
  k: Int[Array, "#B S"] | None = None
  grid: tuple[int, ...] | None = None
  extra: int = 0

  @property
  def known(self) -> bool:
    """True if both are 0, 1, 2, …, so that a mask's pattern is known while tracing."""
    return self.q is None and self.k is None

  def queries(self, length: int) -> Int[Array, "#B T"]:
    """Query positions as an array, `1 T` if they are the default."""
    return jnp.arange(length, dtype=jnp.int32)[None] if self.q is None else self.q

  def keys(self, length: int) -> Int[Array, "#B S"]:
    """Key positions as an array, `1 S` if they are the default."""
    return jnp.arange(length, dtype=jnp.int32)[None] if self.k is None else self.k
