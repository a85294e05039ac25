"""1.5-entmax attention: between softmax and sparsemax, with exact zeros.

Peters et al. 2019, https://arxiv.org/abs/1905.05702, section 3 and algorithm 2.

    out_i = Σ_j w_ij v_j,   w_ij = max(l_ij / 2 − τ_i, 0)²,   Σ_j w_ij = 1,   l_ij = q_i·k_j / √H + b_ij

τ is found by sorting each row: time O(T·S·log S), memory O(S) for each block of queries; decoding state O(S). Honours
every mask and a bias; refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.families import sparse_support
from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class Entmax(ScaledDotProduct):
  def weights(self, logits, readable):
    z, ranked, rank = sparse_support.sorted_logits(logits / 2.0, readable)
    mean = jnp.cumsum(ranked, axis=-1) / rank
    spread = jnp.cumsum(ranked * ranked, axis=-1) - rank * mean * mean
    room = jnp.maximum((1.0 - spread) / rank, 0.0)
    threshold = mean - jnp.where(room > 0.0, jnp.sqrt(jnp.where(room > 0.0, room, 1.0)), 0.0)
    root = jnp.maximum(z - sparse_support.support_threshold(threshold, threshold <= ranked), 0.0)
    return jnp.where(readable, root * root, 0.0)
