"""Axial attention: tokens of an image read along their own row and their own column.

Ho et al. 2019, https://arxiv.org/abs/1912.12180, section 3.

    out_p = Σ_{p' that differs from p in at most one coordinate} softmax_p'(s · q_p·k_p' + b_pp') v_p',   s = 1/√H

On a grid of three axes, such as a video's, along each of the three. Class tokens before the grid read all and are
read by all. Rows and columns are computed each by itself and merged, in time O(T·(columns + rows)); on three axes,
with class tokens, at given positions or on a small grid it is a masked map in time O(T·S). Decoding state O(S).
Honours every mask and a bias; refuses to run without a grid. Departure: the axes are read in one softmax, where the
paper has a layer for each.
"""

import dataclasses

from attention_lab.attention.engines.flash.near_far import FarKeys
from attention_lab.attention.families.gridded import Gridded


@dataclasses.dataclass(frozen=True)
class Axial(Gridded):
  def far_keys(self, S, positions):
    grid = self.grid(positions)
    return FarKeys(*grid.sizes) if len(grid.sizes) == 1 and not grid.extra else None

  def inside(self, i, j):
    differing = 0
    for a, b in zip(i, j, strict=True):
      differing = differing + (a != b)
    return differing <= 1
