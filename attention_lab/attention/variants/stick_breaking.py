"""Stick-breaking attention: from the newest key backwards, each takes its share of what the newer ones left.

Tan et al. 2025, https://arxiv.org/abs/2410.17980, section 2, equations 2 and 3.

    out_i = Σ_j σ(z_ij) Π_{j<l} (1 − σ(z_il)) v_j,   z_ij = q_i·k_j / √H + b_ij,   j, l readable, σ the sigmoid

The order j < l is that of the array. Without `attend_current` a query does not read its own position, as in the paper.
Weights add up to at most 1: what is left of the stick is not read. Time O(T·S), memory O(S) for each block of queries;
decoding state O(S). Honours causal (and needs it), windows, padding, segments and a bias; refuses the rest.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.families import causal_cumsum


@dataclasses.dataclass(frozen=True)
class StickBreaking(causal_cumsum.CausalCumsum):
  shift_invariant: ClassVar[bool] = False

  attend_current: bool = False  # whether a query may read the key at its own position

  def pattern(self, params, i, j):
    return True if self.attend_current else i != j

  def weights(self, logits, readable):
    taken = causal_cumsum.reverse_cumsum(jax.nn.softplus(logits), readable)
    return jnp.where(readable, jnp.exp(jax.nn.log_sigmoid(logits) - taken), 0.0)
