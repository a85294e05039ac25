"""Bilinear attention, Luong's "general" score: a learned matrix between query and key.

Luong et al. 2015, https://arxiv.org/abs/1508.04025, section 3.1.

    out_i = Σ_j softmax_j(q_iᵀ W_n k_j + b_ij) v_j

One W `H H` for each head, starting as the identity over √H, which is softmax attention. Time O(T·S), memory O(S) for
each block of queries; decoding state O(S). Honours every mask and a bias; refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.primitives.blocks import dots
from attention_lab.attention.primitives.scored import Scored


@dataclasses.dataclass(frozen=True)
class Bilinear(Scored):
  def init(self, key, dims):
    start = jnp.eye(dims.head)[None] * dims.head**-0.5
    return {"per_head": {"kernel": jnp.broadcast_to(start, (dims.heads, dims.head, dims.head))}}

  def logits(self, params, block):
    C, K, G, _, H = block.q.shape
    kernel = block.per_head["kernel"].reshape(C, K, G, H, H).astype(block.q.dtype)
    return dots(block._replace(q=jnp.einsum("ckgta,ckgab->ckgtb", block.q, kernel)))
