"""Additive attention: a one-layer network scores each pair.

Bahdanau et al. 2015, https://arxiv.org/abs/1409.0473, section 3.1 and appendix A.1.2.

    out_i = Σ_j softmax_j(w_n·tanh(q_i + k_j) + b_ij) v_j

The paper's two linear maps are the layer's projections of queries and keys. Time O(T·S·H); memory O(S·H) for each
block of queries; decoding state O(S). Honours every mask and a bias; refuses nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.families.scored import Scored


@dataclasses.dataclass(frozen=True)
class Additive(Scored):
  def init(self, key, dims):
    return {"per_head": {"vector": jax.random.normal(key, (dims.heads, dims.head)) * dims.head**-0.5}}

  def floats_per_logit(self, q):
    return q.shape[-1]

  def logits(self, params, block):
    C, K, G, T, H = block.q.shape
    dtype = logits_dtype(block.q, block.k)
    hidden = jnp.tanh(block.q[:, :, :, :, None].astype(dtype) + block.k[:, :, None, None].astype(dtype))
    vector = block.per_head["vector"].reshape(C, K, G, H).astype(dtype)
    return jnp.einsum("ckgtsh,ckgh->ckgts", hidden, vector).reshape(C, K * G, T, -1)
