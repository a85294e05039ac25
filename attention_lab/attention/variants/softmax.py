"""Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1).

    out_i = Σ_j exp(l_ij) v_j / (Σ_j exp(l_ij) + e),   l_ij = c(τ · s · q_i·k_j) + b_ij,   s = 1/√H

The soft cap c(z) = cap·tanh(z/cap) is that of Gemma 2 (https://arxiv.org/abs/2408.00118, section 2); the sink e =
exp(`sink`_n), learned, lets a head read nothing (gpt-oss, https://arxiv.org/abs/2508.10925); the temperature τ =
exp(`temperature`_n) is learned for each head. Without them c(z) = z, e = 0 and τ = 1. Time O(T·S), memory O(S) for
each block of queries; decoding state O(S). Honours every mask and an additive bias; refuses nothing. Rows are whole,
so nothing is approximated.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.primitives import softmax
from attention_lab.attention.primitives.blocks import attend_in_blocks, biased, dots


@dataclasses.dataclass(frozen=True)
class Softmax(Attention):
  scale: float | None = None  # factor of the logits; None = 1/√H
  soft_cap: float | None = None  # bound of the scaled logits; None = none
  sink: bool = False  # a learned logit for each head that joins the normaliser
  temperature: bool = False  # a learned factor of the logits for each head

  def __post_init__(self):
    if self.soft_cap is not None and not self.soft_cap > 0:
      raise ValueError(f"soft_cap={self.soft_cap} must be positive, or None for no bound")

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other" if self.sink else "exact")

  def init(self, key, dims: Dims):
    learned = {"sink": self.sink, "temperature": self.temperature}
    own = {name: jnp.zeros(dims.heads) for name, wanted in learned.items() if wanted}
    return {"per_head": own} if own else {}

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      logits = dots(block) * scale
      if self.temperature:
        logits *= jnp.exp(block.per_head["temperature"])[:, :, None, None]
      logits = biased(softmax.soft_cap(logits, self.soft_cap), block)
      return softmax.average(logits, block, block.per_head["sink"][:, :, None, None] if self.sink else None)

    return attend_in_blocks(equation, q, k, v, call, per_head=params.get("per_head", ()))
