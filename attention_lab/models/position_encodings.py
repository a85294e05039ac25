"""Position encodings: their interface, those that are added to embeddings, and the relative bias of logits.

A position encoding is a frozen dataclass that acts on one part of a model: on embeddings or on logits (here), or on
queries and keys (`rope`).
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Dims, Unsupported
from attention_lab.attention.families.qk_transforms import frequencies
from attention_lab.attention.positions import Positions
from attention_lab.models.config_checks import FLAG
from attention_lab.models.functional import Undecayed
from attention_lab.models.layers import named_key

INIT_STD = 0.02  # of what is learned when it starts


@dataclasses.dataclass(frozen=True)
class PositionEncoding:
  """One way to tell a model where tokens stand."""

  acts_on: ClassVar[str]  # of the model, on which it acts; a part takes one code
  needs_grid: ClassVar[bool] = False  # tokens lie in rows and columns
  alternative: ClassVar[str] = ""  # the code for tokens without a grid

  @property
  def name(self) -> str:
    """As specs name it."""
    return type(self).__name__.lower()

  def refusal(self, variant: Attention) -> str:
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
        f" give {self.alternative}"
      )
    return where.grid


@dataclasses.dataclass(frozen=True)
class AddedEncoding(PositionEncoding):
  """A vector for each position, added to the embeddings."""

  acts_on: ClassVar[str] = "embeddings"
  divisor: ClassVar[int] = 1  # of the model width

  def check(self, dims: Dims) -> None:
    """Raises ValueError for a model width that the code cannot halve."""
    if dims.model % self.divisor:
      raise ValueError(
        f"{FLAG}.positions={self.name} needs a {FLAG}.width that {self.divisor} divides, not {dims.model}"
      )


@dataclasses.dataclass(frozen=True)
class Learned(AddedEncoding):
  """A table of one vector for each position."""


@dataclasses.dataclass(frozen=True)
class Sinusoidal(AddedEncoding):
  """`sinusoidal` of the position."""

  divisor: ClassVar[int] = 2


@dataclasses.dataclass(frozen=True)
class Sincos2d(AddedEncoding):
  """`sincos2d` of row and column."""

  divisor: ClassVar[int] = 4
  needs_grid: ClassVar[bool] = True
  alternative: ClassVar[str] = "sinusoidal"


class EmbeddingEncoding(nnx.Module):
  """Adds the code that acts on embeddings, if `codes` has one."""

  def __init__(self, codes: tuple[PositionEncoding, ...], max_len: int, width: int, *, key: PRNGKeyArray):
    self.code = next((code for code in codes if isinstance(code, AddedEncoding)), None)
    self.max_len, self.width = max_len, width
    if isinstance(self.code, Learned):
      self.learned = LearnedTable(max_len, width, key=key)

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


class LearnedTable(nnx.Module):
  """One learned vector for each position, or for each type of token; it starts small and is not decayed."""

  def __init__(self, max_len: int, width: int, *, key: PRNGKeyArray):
    self.table = Undecayed(INIT_STD * jax.random.normal(named_key(key, "table"), (max_len, width)))

  def __call__(self, positions: Int[Array, "#B T"]) -> Float[Array, "#B T D"]:
    """The vectors; NaN beyond the table, never silently another position."""
    return jnp.take(self.table[...], positions, axis=0, mode="fill", fill_value=jnp.nan)


def resized_table(table: Float[Array, "T D"], grid: tuple[int, int], extra: int) -> Float[Array, "U D"]:
  """The learned vectors of a grid of patches for another grid, between which they are interpolated bilinearly.

  Dosovitskiy et al. 2021 (https://arxiv.org/abs/2010.11929, section 3.2).

  Args:
    table: the vectors of `extra` leading tokens, then those of a grid, row by row: one in the proportions of `grid`, or
      else a square.
    grid: rows and columns of the grid wanted.
    extra: tokens before the grid, whose vectors stay.

  Returns:
    `extra` + rows · columns vectors; the table itself where it has as many.

  Raises:
    ValueError: the table's size is that of no such grid.
  """
  rows, columns = grid
  patches = table.shape[0] - extra
  if patches == rows * columns:
    return table
  shapes = [(height, patches // height) for height in range(1, patches + 1) if patches % height == 0]
  fitting = [shape for shape in shapes if shape[0] * columns == shape[1] * rows or shape[0] == shape[1]]
  if not fitting:
    raise ValueError(f"{patches} learned positions are neither a square nor in the proportions of {rows}×{columns}")
  old_grid = min(fitting, key=lambda shape: shape[0] * columns != shape[1] * rows)
  width = table.shape[1]
  old = jnp.reshape(table[extra:], (*old_grid, width))
  new = jax.image.resize(old, (rows, columns, width), "bilinear")
  return jnp.concatenate([table[:extra], new.reshape(-1, width)])


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
  cells = jnp.arange(math.prod(grid), dtype=jnp.int32)[None]
  codes = [sinusoidal(axis, width // 2) for axis in row_and_column(cells, grid[1])]
  return jnp.pad(jnp.concatenate(codes, axis=-1), ((0, 0), (extra, 0), (0, 0)))


def row_and_column(cell: Int[Array, "*B T"], columns: int) -> tuple[Any, Any]:
  """Row and column of each cell of a grid that is read row by row."""
  return cell // columns, cell % columns


@dataclasses.dataclass(frozen=True)
class Bias2d(PositionEncoding):
  """A `RelativeBias` in each layer whose variant honours a bias."""

  acts_on: ClassVar[str] = "logits"
  needs_grid: ClassVar[bool] = True
  alternative: ClassVar[str] = "rope or learned"

  def refusal(self, variant: Attention) -> str:
    name = spec.to_string(variant)
    if not variant.claims().bias:
      return f"adds to logits, and {name} honours no bias; give sincos2d or learned, or a variant such as softmax"
    return ""


class RelativeBias(nnx.Module):
  """A learned number for each head and each offset on a grid, added to the logits.

  Liu et al. 2021 (Swin), https://arxiv.org/abs/2103.14030, section 3.2 and equation 4, over the whole grid:

      l_ij = s · q_i·k_j + β_n[Δrow + h − 1, Δcolumn + w − 1],   Δ = cell of i − cell of j

  A head has (2h−1)·(2w−1) numbers, a layer `N E`. Tokens before the grid (class, registers) have no cell: with them a
  head has three more, for a class token that reads the grid, for the grid that reads a class token, and for one class
  token that reads another, as in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254). Not decayed, as in the
  authors' code.
  """

  def __init__(self, heads: int, grid: tuple[int, int], extra: int, *, key: PRNGKeyArray):
    self.grid, self.extra = grid, extra
    shape = (heads, offset_count(grid, extra))
    self.per_head = nnx.Dict({"bias": nnx.Param(INIT_STD * jax.random.normal(named_key(key, "bias"), shape))})

  def __call__(self, where: Positions, length: int) -> Float[Array, "#B N T T"]:
    """The bias of `length` tokens among themselves. Raises ValueError for another grid than it was built for."""
    if (Bias2d().grid(where), where.extra) != (self.grid, self.extra):
      built = f"a grid of {self.grid} and {self.extra} tokens before it"
      raise ValueError(f"{FLAG}.positions=bias2d was built for {built}, not {where.grid} and {where.extra}")
    index = offset_index(where.queries(length), where.queries(length), self.grid, self.extra)
    return jnp.moveaxis(jnp.take(self.per_head["bias"][...], index, axis=1), 0, 1)


def offset_count(grid: tuple[int, int], extra: int) -> int:
  """E: the number of offsets, and so of learned numbers of a head."""
  return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3 * (extra > 0)


def offset_index(
  q: Int[Array, "#B T"], k: Int[Array, "#B S"], grid: tuple[int, int], extra: int
) -> Int[Array, "#B T S"]:
  """The index of the number for queries and keys at these positions: `extra` tokens first, then the grid by rows."""
  q, k = (positions - extra for positions in (q[:, :, None], k[:, None, :]))
  down, right = (
    i - j + size - 1 for i, j, size in zip(row_and_column(q, grid[1]), row_and_column(k, grid[1]), grid, strict=True)
  )
  index, end = down * (2 * grid[1] - 1) + right, offset_count(grid, 0)
  if not extra:
    return index
  outside = jnp.where((q < 0) & (k < 0), end + 2, jnp.where(q < 0, end, end + 1))
  return jnp.where((q < 0) | (k < 0), outside, index)
