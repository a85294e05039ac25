"""Transient global attention: a sliding window, and one summary for every block of tokens.

Guo et al. 2022, LongT5, https://arxiv.org/abs/2112.07916, section 3.1.

    out_i = softmax of {s·q_i·k_j : |i−j| < W} and {s·q_i·k̄_c : every block c} together, on v_j and v̄_c,   s = 1/√H

k̄_c and v̄_c are means over the valid tokens of b consecutive places; a block without any is not read. Time
O(T·(W + S/b)), keys outside the window are never computed; memory O(S/b) for each block of queries. Honours padding;
refuses causal and every other pattern, for a summary mixes its tokens, and so decoding, a bias, cross-attention and
given positions. Departures: no norm of the summaries, which are means of keys and of values where the paper projects
the sum of the block's inputs; no position bias.
"""

import dataclasses

from attention_lab.attention.engines.chunked import distance
from attention_lab.attention.families import segment_mean
from attention_lab.attention.families.summaries import Summarised


@dataclasses.dataclass(frozen=True)
class LongT5Tglobal(Summarised, at_least_one=("window", "block")):
  window: int = 128  # W, in positions, the own one counted
  block: int = 16  # b, places of a summary

  def span(self):
    return self.window

  def near(self, block, positions):
    return abs(distance(block)) < self.window

  def means(self, valid, k, v, positions):
    return segment_mean.by_runs(self.block, valid, k, v)
