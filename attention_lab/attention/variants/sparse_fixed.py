"""Fixed sparse attention: blocks, and a few summary positions at the end of each block that all may read.

Child et al. 2019, https://arxiv.org/abs/1904.10509, section 4.3.

    out_i = Σ_{⌊i/l⌋ = ⌊j/l⌋ or j mod l ≥ l − c} softmax_j(s · q_i·k_j + b_ij) v_j,   s = 1/√H

Both of the paper's factorised patterns in one head, each computed by itself and merged. Time O(T·(l + S·c/l)), or
O(T·S) as a masked map where positions are given or S is short; decoding state O(S). Honours every mask and a bias;
refuses nothing.
"""

import dataclasses

import numpy as np

from attention_lab.attention.engines.flash.near_far import FarKeys
from attention_lab.attention.families.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class SparseFixed(Patterned):
  stride: int = 128  # l, in positions
  expressivity: int = 8  # c, summary positions of each block

  def __post_init__(self):
    if self.stride < 1 or not 1 <= self.expressivity <= self.stride:
      raise ValueError(f"expressivity={self.expressivity} must be at least 1 and at most stride={self.stride}")

  def far_keys(self, S, positions):
    keys = np.arange(S, dtype=np.int32)
    return FarKeys(self.stride, keys[keys % self.stride >= self.stride - self.expressivity])

  def pattern(self, params, i, j):
    return (i // self.stride == j // self.stride) | (j % self.stride >= self.stride - self.expressivity)
