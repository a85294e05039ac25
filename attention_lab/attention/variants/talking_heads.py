"""Talking-heads attention (Shazeer et al. 2020, https://arxiv.org/abs/2003.02436, section 4).

    L'_m = Σ_n L_n P_nm,   W_m = softmax(L'_m),   W'_n = Σ_m W_m R_mn,   out_n = W'_n v,   L_n = q_n k_nᵀ / √H

P (`logits`, N N) mixes the heads' logits before the softmax, R (`weights`, N N) their weights after it. Both start as
the identity, which is plain softmax attention; the paper starts them at random. Time O(T·S·N·(H + N)), memory O(S·N)
for each block of queries; decoding state O(S). Honours every mask and a bias, which is added to the mixed logits;
refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks, combine, dots
from attention_lab.attention.families import softmax


@dataclasses.dataclass(frozen=True)
class TalkingHeads(Attention):
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, mixes_heads=True, exactness="other")

  def init(self, key, dims: Dims):
    return {"logits": jnp.eye(dims.heads), "weights": jnp.eye(dims.heads)}

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      mixed = jnp.einsum("cnts,nm->cmts", dots(block) * scale, params["logits"])
      weights = softmax.weights(add_bias(mixed, block, block.readable), block.readable)
      return combine(jnp.einsum("cmts,mn->cnts", weights, params["weights"]), block)

    return attend_in_blocks(equation, q, k, v, call, mixes_heads=True)
