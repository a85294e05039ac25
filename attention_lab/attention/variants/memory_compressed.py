"""Memory-compressed attention: queries read the means of runs of keys and values.

Liu et al. 2018, https://arxiv.org/abs/1801.10198, section 4.2.3.

    out_i = Σ_c softmax_c(q_i·k̄_c / √H) v̄_c,   k̄_c, v̄_c the means of k_j, v_j over c·r ≤ j < (c + 1)·r

Cells are runs of r places of the array; the means are over their valid tokens, and a cell without any is not read.
Time O(T·S / r), memory O(T) by tiles. Honours padding; refuses causal and every other pattern,
for a cell mixes its tokens, and so decoding and a bias. Departure: means, where the paper has a strided convolution.
"""

import dataclasses

from attention_lab.attention.base import Attention, Call, Claims
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families import segment_mean, softmax
from attention_lab.attention.mask import Mask


@dataclasses.dataclass(frozen=True)
class MemoryCompressed(Attention, at_least_one=("stride",)):
  stride: int = 4  # r, places of a cell
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=frozenset({"q_valid", "kv_valid"}), decode=False, exactness="other")

  def attend(self, params, q, k, v, call: Call):
    (k, v), occupied = segment_mean.by_runs(self.stride, segment_mean.valid_keys(call, k.shape[1]), k, v)
    call = Call(Mask(q_valid=call.mask.q_valid, kv_valid=occupied))
    return forward.attend(q, k, v, call, softmax.scale(self.scale, q))[0]
