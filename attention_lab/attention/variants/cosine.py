"""Cosine attention: queries and keys of unit length, a learned scale (query–key normalisation).

Henry et al. 2020, https://arxiv.org/abs/2010.04245, section 3.

    out_i = Σ_j softmax_j(g q̂_i·k̂_j + b_ij) v_j,   x̂ = x / √(‖x‖² + 10⁻⁶)

One g for all heads. Time O(T·S), memory O(T) by tiles; decoding state O(S). Honours every mask and a
bias; refuses nothing. Departure: g starts at the field `scale`, where the paper derives it from the length of its
training sequences.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Claims, logits_dtype
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families.qk_transforms import l2_normalize


@dataclasses.dataclass(frozen=True)
class Cosine(Attention):
  tunable: ClassVar[Mapping[str, tuple]] = {"scale": (5.0, 10.0, 20.0)}

  scale: float = 10.0  # g at the start

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other")

  def init(self, key, dims):
    return {"scale": jnp.asarray(self.scale, jnp.float32)}

  def attend(self, params, q, k, v, call):
    dtype = logits_dtype(q)
    q = params["scale"].astype(dtype) * l2_normalize(q.astype(dtype))
    return forward.attend(q, l2_normalize(k), v, call, 1.0)[0]
