"""Sparsemax attention: the Euclidean projection of the logits onto the simplex, with exact zeros.

Martins and Astudillo 2016, https://arxiv.org/abs/1602.02068, section 2.

    out_i = Σ_j w_ij v_j,   w_ij = max(l_ij − τ_i, 0),   Σ_j w_ij = 1,   l_ij = q_i·k_j / √H + b_ij

τ is found by sorting each row: time O(T·S·log S), memory O(S) for each block of queries; decoding state O(S). Honours
every mask and a bias; refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.families import sparse_support
from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class Sparsemax(ScaledDotProduct):
  def weights(self, logits, readable):
    z, ranked, rank = sparse_support.sorted_logits(logits, readable)
    sums = jnp.cumsum(ranked, axis=-1)
    threshold = sparse_support.support_threshold((sums - 1.0) / rank, rank * ranked > sums - 1.0)
    return jnp.where(readable, jnp.maximum(z - threshold, 0.0), 0.0)
