"""Longformer: a sliding window, and a few global tokens at the start that read all and are read by all.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1.

    out_i = Σ_{|i−j| < W or j < g or i < g} softmax_j(q_i·k_j / √H + b_ij) v_j

Time O(T·(W + g)) by tiles of the map that hold any of these pairs; where positions are given, or the map has more than
2^28 pairs, O(T·S) as a masked map. Decoding state O(S). Honours every mask and a bias; refuses nothing. Departures:
global tokens share the projections of the others, and are the first g positions.
"""

import dataclasses

from attention_lab.attention.families.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class Longformer(Patterned):
  window: int = 128  # W, in positions, the own one counted
  global_tokens: int = 1  # g

  def __post_init__(self):
    if self.window < 1 or self.global_tokens < 0:
      raise ValueError(f"window={self.window} must be at least 1 and global_tokens={self.global_tokens} at least 0")

  def claims(self):
    return dataclasses.replace(super().claims(), time_exponent=1)

  def pattern(self, params, i, j):
    return (abs(i - j) < self.window) | (j < self.global_tokens) | (i < self.global_tokens)
