"""Codes of positions: what they have in common, and those that are added to embeddings.

A code is a frozen dataclass that acts on one part of a model: on embeddings (here), on queries and keys (`rope`), or on
logits (`relative_bias`).
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention.base import Attention, Dims, Unsupported
from attention_lab.attention.families.qk_transforms import frequencies
from attention_lab.attention.positions import Positions
from attention_lab.models import rng
from attention_lab.models.config_checks import FLAG

STD = 0.02  # of what is learned when it starts


@dataclasses.dataclass(frozen=True)
class Code:
  """One way to tell a model where tokens stand."""

  part: ClassVar[str]  # of the model, on which it acts; a part takes one code
  needs_grid: ClassVar[bool] = False  # tokens lie in rows and columns
  instead: ClassVar[str] = ""  # the code for tokens without a grid

  @property
  def name(self) -> str:
    """As specs name it."""
    return type(self).__name__.lower()

  def obstacle(self, variant: Attention) -> str:
    """Why a layer with this variant cannot take the code, and the fix; empty if it can."""
    del variant
    return ""

  def check(self, dims: Dims) -> None:
    """Raises ValueError for widths that do not fit."""
    del dims

  def grid(self, where: Positions) -> tuple[int, int]:
    """Rows and columns of the tokens. Raises Unsupported where there are none, as in text and in decoding."""
    if where.grid is None or len(where.grid) != 2:
      raise Unsupported(
        f"{FLAG}.positions={self.name} needs tokens on a grid of rows and columns, which text and decoding do not have;"
        f" give {self.instead}"
      )
    return where.grid


@dataclasses.dataclass(frozen=True)
class Added(Code):
  """A vector for each position, added to the embeddings."""

  part: ClassVar[str] = "embeddings"
  divisor: ClassVar[int] = 1  # of the model width

  def check(self, dims: Dims) -> None:
    """Raises ValueError for a model width that the code cannot halve."""
    if dims.model % self.divisor:
      raise ValueError(
        f"{FLAG}.positions={self.name} needs a {FLAG}.width that {self.divisor} divides, not {dims.model}"
      )


@dataclasses.dataclass(frozen=True)
class Learned(Added):
  """A table of one vector for each position."""


@dataclasses.dataclass(frozen=True)
class Sinusoidal(Added):
  """`sinusoidal` of the position."""

  divisor: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Sincos2d(Added):
  """`sincos2d` of row and column."""

  divisor: ClassVar[int] = 4
  needs_grid: ClassVar[bool] = True
  instead: ClassVar[str] = "sinusoidal"


class Codes(nnx.Module):
  """Adds the code that acts on embeddings, if `codes` has one."""

  def __init__(self, codes: tuple[Code, ...], max_len: int, width: int, *, key: PRNGKeyArray):
    self.code = next((code for code in codes if isinstance(code, Added)), None)
    self.max_len, self.width = max_len, width
    if isinstance(self.code, Learned):
      self.learned = Table(max_len, width, key=key)

  def __call__(self, x: Float[Array, "B T D"], where: Positions) -> Float[Array, "B T D"]:
    """Raises ValueError if x is longer than max_len, Unsupported if the code needs a grid and there is none."""
    if x.shape[1] > self.max_len:
      raise ValueError(
        f"{x.shape[1]} tokens are more than the {self.max_len} that the model was built for; give a larger max_len"
      )
    return x if self.code is None else x + self._vectors(x.shape[1], where).astype(x.dtype)

  def _vectors(self, length: int, where: Positions) -> Array:
    if isinstance(self.code, Sincos2d):
      return sincos2d(self.code.grid(where), where.extra, self.width)
    if isinstance(self.code, Sinusoidal):
      return sinusoidal(where.queries(length), self.width)
    return self.learned(where.queries(length))


class Table(nnx.Module):
  """One learned vector for each position; it starts small."""

  def __init__(self, max_len: int, width: int, *, key: PRNGKeyArray):
    self.table = nnx.Param(STD * jax.random.normal(rng.child(key, "table"), (max_len, width)))

  def __call__(self, positions: Int[Array, "#B T"]) -> Float[Array, "#B T D"]:
    """The vectors; NaN beyond the table, never silently another position."""
    return jnp.take(self.table[...], positions, axis=0, mode="fill", fill_value=jnp.nan)


def sinusoidal(positions: Int[Array, "#B T"], width: int) -> Float[Array, "#B T D"]:
  """All sin(i·f), then all cos(i·f), for width/2 frequencies f from 1 down towards 1/10000.

  Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762, section 3.5), where the two alternate. Raises ValueError for an
  odd width.
  """
  if width % 2:
    raise ValueError(f"sinusoidal codes have a sine and a cosine of each frequency: width={width} must be even")
  angles = positions[:, :, None].astype(jnp.float32) * frequencies(width // 2)[None, None]
  return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def sincos2d(grid: tuple[int, int], extra: int, width: int) -> Float[Array, "1 T D"]:
  """Half the width codes the row, half the column, as in `sinusoidal`; the `extra` leading tokens get zeros.

  4 divides the width. As in MoCo v3 (Chen et al. 2021, https://arxiv.org/abs/2104.02057).
  """
  place = jnp.arange(math.prod(grid), dtype=jnp.int32)[None]
  codes = [sinusoidal(axis, width // 2) for axis in divided(place, grid[1])]
  return jnp.pad(jnp.concatenate(codes, axis=-1), ((0, 0), (extra, 0), (0, 0)))


def divided(place: Int[Array, "*B T"], columns: int) -> tuple[Any, Any]:
  """Row and column of each place on a grid that is read row by row."""
  return place // columns, place % columns
