"""Regional attention: tokens of an image read their own region, and every other region as one pooled token.

Chen et al. 2022, RegionViT, https://arxiv.org/abs/2106.02689, section 3.2, with means for regional tokens.

    out_p = softmax of {s·q_p·k_p' : region' = region} and {s·q_p·k̄_c : region c ≠ region} together, on v_p' and v̄_c

Regions are squares of r × r tokens, s = 1/√H; k̄_c and v̄_c are means over the valid tokens of c, and a region without
any is not read. On a grid of three axes regions are cubes. Class tokens before the grid read all one by one, are read
by all, and belong to no region. Time O(T·(r·columns + S/r²)), without class tokens, for rows outside the region are
then not computed; memory O(S) for each block of queries. Honours padding; refuses causal and every other pattern, for
a region mixes its tokens, and so decoding, a bias, cross-attention and given positions, and to run without a grid.
Departure: the paper's regions have tokens of their own, which attend first.
"""

import dataclasses
import math

import jax.numpy as jnp

from attention_lab.attention.families import segment_mean
from attention_lab.attention.families.gridded import Gridded, same_window
from attention_lab.attention.families.summaries import Summarised


@dataclasses.dataclass(frozen=True)
class Region(Summarised, Gridded, at_least_one=("size",)):
  size: int = 4  # r, tokens along each axis

  def max_offset(self):
    return self.size - 1

  def inside(self, i, j):
    return same_window(i, j, self.size)

  def near(self, block, positions):
    return self.mask_mod({}, block.i[:, None, :, None], block.j[:, None, None, :], positions)

  def seen(self, block, count, positions):
    regions = self._regions(block.i, positions)[:, None, :, None]
    return (regions >= 0) & (regions != jnp.arange(count)[None, None, None])

  def means(self, valid, k, v, positions):
    sizes, S = self.grid(positions).sizes, k.shape[1]
    rows = -(-max(S - positions.extra, 0) // math.prod(sizes))
    count = math.prod(-(-axis // self.size) for axis in (rows, *sizes))
    return segment_mean.by_id(self._regions(positions.keys(S), positions), count, valid, k, v)

  def _regions(self, positions, call):
    """The number of each token's region; −1 for class tokens."""
    grid = self.grid(call)
    first, *others = grid.coordinates(positions)
    region = first // self.size
    for coordinate, axis in zip(others, grid.sizes, strict=True):
      region = region * -(-axis // self.size) + coordinate // self.size
    return jnp.where(positions < grid.extra, -1, region)
