"""Space-time attention: tokens of a video read their own frame, and their own place in every frame.

Bertasius et al. 2021, TimeSformer, https://arxiv.org/abs/2102.05095, section 3.

    out_p = Σ_{p': frame' = frame or place' = place} softmax_p'(s · q_p·k_p' + b_pp') v_p',   s = 1/√H

frame, place = divmod(p − extra, tokens). Class tokens before the grid read all and are read by all. Space and time are
computed each by itself and merged, in time O(T·(tokens + frames)); with class tokens, at given positions or for few
frames it is a masked map in time O(T·S). Decoding state O(S). Honours every mask and a bias; refuses to run without
knowing the size of a frame. Departure: space and time are read in one softmax, where the paper's divided attention has
one for each.
"""

import dataclasses
import math
from typing import ClassVar

from attention_lab.attention.engines.flash.near_far import FarKeys
from attention_lab.attention.families.gridded import OnGrid


@dataclasses.dataclass(frozen=True)
class DividedSpaceTime(OnGrid):
  field: ClassVar[str] = "tokens"
  axes: ClassVar[tuple[str, ...]] = ("frames", "rows", "columns")

  tokens: int = 0  # of a frame; 0 = as the 3-D `Positions.grid` says

  def __post_init__(self):
    if self.tokens < 0:
      raise ValueError(f"tokens={self.tokens} must be at least 1, or 0 to take the grid of the positions")

  def sizes(self, positions):
    if self.tokens:
      return (self.tokens,)
    return (math.prod(positions.grid[1:]),) if positions.grid and len(positions.grid) == 3 else None

  def far_keys(self, S, positions):
    grid = self.grid(positions)
    return None if grid.extra else FarKeys(*grid.sizes)

  def inside(self, i, j):
    return (i[0] == j[0]) | (i[1] == j[1])
