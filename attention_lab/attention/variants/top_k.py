"""Top-k attention: softmax over the k largest logits of each row.

Gupta et al. 2021, https://arxiv.org/abs/2106.06899, section 2.

    out_i = Σ_{j: l_ij ≥ the k-th largest of row i} softmax_j(l_ij) v_j,   l_ij = q_i·k_j / √H + b_ij

The choice is among the keys that the mask leaves; ties with the k-th are kept. Time O(T·S), memory O(S) for each
block of queries; decoding state O(S). Honours every mask and a bias; refuses nothing.
"""

import dataclasses

from attention_lab.attention.families import softmax
from attention_lab.attention.families.scored import ScaledDotProduct
from attention_lab.attention.families.sparse_support import top_k_mask


@dataclasses.dataclass(frozen=True)
class TopK(ScaledDotProduct, at_least_one=("k",)):
  k: int = 8  # keys that each query reads

  def weights(self, logits, readable):
    return softmax.weights(logits, top_k_mask(logits, readable, self.k))
