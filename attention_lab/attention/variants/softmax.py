"""Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1).

    out_i = Σ_j softmax_j(c(s · q_i·k_j) + b_ij) v_j,   s = 1/√H,   c(z) = cap·tanh(z/cap) or z

Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask and an additive bias;
refuses nothing. The soft cap is that of Gemma 2 (https://arxiv.org/abs/2408.00118, section 2). Rows are whole, so
nothing is approximated.
"""

import dataclasses

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims
from attention_lab.attention.primitives import softmax
from attention_lab.attention.primitives.blocks import attend_in_blocks, biased, dots


@dataclasses.dataclass(frozen=True)
class Softmax(Attention):
  scale: float | None = None  # factor of the logits; None = 1/√H
  soft_cap: float | None = None  # bound of the scaled logits; None = none

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True)

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      return softmax.average(biased(softmax.soft_cap(dots(block) * scale, self.soft_cap), block), block)

    return attend_in_blocks(equation, q, k, v, call)
