"""Bilinear attention, Luong's "general" score: a learned matrix between query and key.

Luong et al. 2015, https://arxiv.org/abs/1508.04025, section 3.1.

    out_i = Σ_j softmax_j(q_iᵀ W_n k_j + b_ij) v_j

One W `H H` for each head, starting as the identity over √H, which is softmax attention. Time O(T·S), memory O(T)
by tiles; decoding state O(S). Honours every mask and a bias; refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.engines.flash import forward


@dataclasses.dataclass(frozen=True)
class Bilinear(Attention):
  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other")

  def init(self, key, dims):
    start = jnp.eye(dims.head)[None] * dims.head**-0.5
    return {"per_head": {"kernel": jnp.broadcast_to(start, (dims.heads, dims.head, dims.head))}}

  def attend(self, params, q, k, v, call):
    q = jnp.einsum("btnh,nhe->btne", q, params["per_head"]["kernel"].astype(q.dtype))
    return forward.attend(q, k, v, call, 1.0)[0]
