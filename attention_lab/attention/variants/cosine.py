"""Cosine attention: queries and keys of unit length, a learned scale (query–key normalisation).

Henry et al. 2020, https://arxiv.org/abs/2010.04245, section 3.

    out_i = Σ_j softmax_j(g q̂_i·k̂_j + b_ij) v_j,   x̂ = x / √(‖x‖² + 10⁻⁶)

One g for all heads. Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask and a
bias; refuses nothing. Departure: g starts at the field `scale`, where the paper derives it from the length of its
training sequences.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.primitives.blocks import dots
from attention_lab.attention.primitives.norms import unit
from attention_lab.attention.primitives.scored import Scored


@dataclasses.dataclass(frozen=True)
class Cosine(Scored):
  scale: float = 10.0  # g at the start

  def init(self, key, dims):
    return {"scale": jnp.asarray(self.scale, jnp.float32)}

  def logits(self, params, block):
    return params["scale"] * dots(block._replace(q=unit(block.q), k=unit(block.k)))
