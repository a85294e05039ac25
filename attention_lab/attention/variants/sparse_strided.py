"""Strided sparse attention: the nearest positions and every l-th one before and behind.

Child et al. 2019, https://arxiv.org/abs/1904.10509, section 4.2.

    out_i = Σ_{|i−j| < l or l | i−j} softmax_j(q_i·k_j / √H + b_ij) v_j

Both of the paper's factorised patterns in one head, each computed by itself and merged. Time O(T·(l + S/l)), or O(T·S)
as a masked map where positions are given or S is short; decoding state O(S). Honours every mask and a bias; refuses
nothing.
"""

import dataclasses

from attention_lab.attention.engines.flash.near_far import FarKeys
from attention_lab.attention.families.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class SparseStrided(Patterned, at_least_one=("stride",)):
  stride: int = 64  # l, in positions

  def far_keys(self, S, positions):
    return FarKeys(self.stride)

  def pattern(self, params, i, j):
    return (abs(i - j) < self.stride) | ((i - j) % self.stride == 0)
