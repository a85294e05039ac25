"""Block-local attention: the sequence is cut into blocks, and each attends within itself.

Qiu et al. 2020, https://arxiv.org/abs/1911.02972, section 3, with the identity permutation.

    out_i = Σ_{⌊i/b⌋ = ⌊j/b⌋} softmax_j(q_i·k_j / √H + b_ij) v_j

Time O(T·b); decoding state a ring of b keys and values. Honours every mask and a bias; refuses nothing.
"""

import dataclasses

from attention_lab.attention.families.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class BlockLocal(Patterned, at_least_one=("block",)):
  block: int = 64  # b, in positions

  def claims(self):
    return dataclasses.replace(super().claims(), time_exponent=1, state_exponent=0)

  def span(self):
    return self.block

  def pattern(self, params, i, j):
    return i // self.block == j // self.block
