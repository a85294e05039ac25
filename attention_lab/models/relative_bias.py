"""A learned number for each head and each offset on a grid, added to the logits.

Liu et al. 2021 (Swin), https://arxiv.org/abs/2103.14030, section 3.2 and equation 4, over the whole grid:

    l_ij = s · q_i·k_j + β_n[Δrow + h − 1, Δcolumn + w − 1],   Δ = place of i − place of j

A head has (2h−1)·(2w−1) numbers. Tokens before the grid (class, registers) have no place: with them a head has three
more, for a class token that reads the grid, for the grid that reads a class token, and for one class token that reads
another, as in BEiT (Bao et al. 2021, https://arxiv.org/abs/2106.08254).
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.positions import Positions
from attention_lab.models import rng
from attention_lab.models.config_checks import FLAG
from attention_lab.models.position_encodings import STD, Code, divided


@dataclasses.dataclass(frozen=True)
class Bias2d(Code):
  """A `RelativeBias` in each layer whose variant honours a bias."""

  part: ClassVar[str] = "logits"
  needs_grid: ClassVar[bool] = True
  instead: ClassVar[str] = "rope or learned"

  def obstacle(self, variant: Attention) -> str:
    name = spec.to_string(variant)
    if not variant.claims().bias:
      return f"adds to logits, and {name} honours no bias; give sincos2d or learned, or a variant such as softmax"
    return ""


class RelativeBias(nnx.Module):
  """The numbers of one layer: `N E`, with one row for each head. Not decayed, as in the authors' code."""

  def __init__(self, heads: int, grid: tuple[int, int], extra: int, *, key: PRNGKeyArray):
    self.grid, self.extra = grid, extra
    shape = (heads, count(grid, extra))
    self.per_head = nnx.Dict({"bias": nnx.Param(STD * jax.random.normal(rng.child(key, "bias"), shape))})

  def __call__(self, where: Positions, length: int) -> Float[Array, "#B N T T"]:
    """The bias of `length` tokens among themselves. Raises ValueError for another grid than it was built for."""
    if (Bias2d().grid(where), where.extra) != (self.grid, self.extra):
      built = f"a grid of {self.grid} and {self.extra} tokens before it"
      raise ValueError(f"{FLAG}.positions=bias2d was built for {built}, not {where.grid} and {where.extra}")
    index = entries(where.queries(length), where.queries(length), self.grid, self.extra)
    return jnp.moveaxis(jnp.take(self.per_head["bias"][...], index, axis=1), 0, 1)


def count(grid: tuple[int, int], extra: int) -> int:
  """E: how many numbers a head has."""
  return (2 * grid[0] - 1) * (2 * grid[1] - 1) + 3 * (extra > 0)


def entries(q: Int[Array, "#B T"], k: Int[Array, "#B S"], grid: tuple[int, int], extra: int) -> Int[Array, "#B T S"]:
  """The number that queries and keys at these positions (`extra` tokens first, then the grid by rows) take."""
  q, k = (positions - extra for positions in (q[:, :, None], k[:, None, :]))
  down, right = (i - j + size - 1 for i, j, size in zip(divided(q, grid[1]), divided(k, grid[1]), grid, strict=True))
  index, end = down * (2 * grid[1] - 1) + right, count(grid, 0)
  if not extra:
    return index
  outside = jnp.where((q < 0) & (k < 0), end + 2, jnp.where(q < 0, end, end + 1))
  return jnp.where((q < 0) | (k < 0), outside, index)
