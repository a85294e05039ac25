"""Sigmoid attention: every weight stands for itself and rows need not sum to 1.

Ramapuram et al. 2025, https://arxiv.org/abs/2409.04431, section 2.

    out_i = Σ_j σ(q_i·k_j / √H + b_ij + b) v_j,   b = −log(max_len)

b keeps the sum of weights near 1 at the start; the paper takes the log of the sequence's length, which decoding does
not know, so here it is that of the longest. Time O(T·S), memory O(S) for each block of queries; decoding state O(S).
Honours every mask and a bias; refuses nothing.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class Sigmoid(ScaledDotProduct):
  shift_invariant: ClassVar[bool] = False

  def init(self, key, dims):
    return {"fixed": {"bias": jnp.asarray(-math.log(dims.max_len), jnp.float32)}}

  def logits(self, params, block):
    return super().logits(params, block) + params["fixed"]["bias"]

  def weights(self, logits, readable):
    return jnp.where(readable, jax.nn.sigmoid(logits), 0.0)
