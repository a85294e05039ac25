"""Swin: the image is cut into square windows, and tokens attend within their own.

Liu et al. 2021, https://arxiv.org/abs/2103.14030, section 3.2.

    out_p = Σ_{p' in the window of p} softmax_p'(s · q_p·k_p' + b_pp') v_p',   s = 1/√H

The window of p is (⌊(row − shift)/w⌋, ⌊(column − shift)/w⌋); layers with shift = 0 and ⌊w/2⌋ take turns
(`swin|swin(shift=3)`). On a grid of three axes the same for each. Class tokens before the grid read all and are read
by all. Without them time O(T·w·columns), as blocks of tokens outside the window's rows are never computed; with
`columns` given, decoding state is a ring of as many tokens, else O(S). Honours every mask and a bias; refuses to run
without a grid. Departures: no position bias inside, pass one; shifted windows are cut off at the border of the grid.
"""

import dataclasses

from attention_lab.attention.families.gridded import Gridded, same_window


@dataclasses.dataclass(frozen=True)
class Swin(Gridded):
  window: int = 7  # w, tokens along each axis
  shift: int = 0  # of the windows, in tokens along each axis

  def __post_init__(self):
    super().__post_init__()
    if self.window < 1 or not 0 <= self.shift < self.window:
      raise ValueError(f"shift={self.shift} must be at least 0 and below window={self.window}")

  def max_offset(self):
    return self.window - 1

  def inside(self, i, j):
    return same_window(i, j, self.window, self.shift)
