"""Where queries and keys stand in their sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@functools.partial(jax.tree_util.register_dataclass, data_fields=("q", "k"), meta_fields=("grid", "extra"))
@dataclasses.dataclass(frozen=True)
class Positions:
  """Positions of queries and keys, in tokens; patterns are functions of these and never of array indices.

  None stands for 0, 1, 2, …, which is known while tracing, so that engines can skip blocks. A key at position −1 is an
  empty slot of a cache. Positions restart in each segment.

  An image or a video is flattened row by row (frame by frame), behind `extra` tokens without a place in the grid.
  Variants with two- or three-dimensional patterns read `grid` and `extra`, the others ignore them.

  Both arrays broadcast over the batch: `1 T` serves every example.
  """

  q: Int[Array, "#B T"] | None = None  # of the queries
  k: Int[Array, "#B S"] | None = None  # of the keys
  grid: tuple[int, ...] | None = None  # rows and columns, or frames, rows and columns, that tokens were flattened from
  extra: int = 0  # tokens that precede the grid, such as class and register tokens

  @property
  def known(self) -> bool:
    """Whether both are 0, 1, 2, …, so that a mask's pattern is known while tracing."""
    return self.q is None and self.k is None

  def queries(self, length: int) -> Int[Array, "#B T"]:
    """The positions of `length` queries as an array, `1 T` if they are the default."""
    return jnp.arange(length, dtype=jnp.int32)[None] if self.q is None else self.q

  def keys(self, length: int) -> Int[Array, "#B S"]:
    """The positions of `length` keys as an array, `1 S` if they are the default."""
    return jnp.arange(length, dtype=jnp.int32)[None] if self.k is None else self.k
