"""Neighbourhood attention: tokens of an image read a square of tokens around them.

Ramachandran et al. 2019, https://arxiv.org/abs/1906.05909, section 3.1.

    out_p = Σ_{p': |row − row'| ≤ ⌊w/2⌋, |column − column'| ≤ ⌊w/2⌋} softmax_p'(s · q_p·k_p' + b_pp') v_p',   s = 1/√H

Squares are cut off at the border of the grid, as in the Image Transformer (https://arxiv.org/abs/1802.05751) and
unlike NAT (https://arxiv.org/abs/2204.07143), which shifts them inward. On a grid of three axes the same for each.
Class tokens before the grid read all and are read by all. Without them time O(T·w·columns), as blocks of tokens
outside the square's rows are never computed; with `columns` given, decoding state is a ring of as many tokens, else
O(S). Honours every mask and a bias; refuses to run without a grid.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.families.gridded import Gridded


@dataclasses.dataclass(frozen=True)
class Neighbourhood(Gridded):
  window: int = 7  # w, tokens along each axis, the own one in the middle

  def __post_init__(self):
    super().__post_init__()
    if self.window < 1 or self.window % 2 == 0:
      raise ValueError(f"window={self.window} must be odd: the own token and as many on either side")

  def max_offset(self):
    return self.window // 2

  def inside(self, i, j):
    near = True
    for a, b in zip(i, j, strict=True):
      near = near & (jnp.abs(a - b) <= self.max_offset())
    return near
