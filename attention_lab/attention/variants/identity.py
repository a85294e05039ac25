"""Identity: every query reads its own value and nothing else. A control without any mixing of positions.

    out_i = v_i

It is local attention with a window of 1. Time and memory O(T); no decoding state. Honours every mask, as far as a
position may read itself; refuses a bias and cross-attention.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, check_extend
from attention_lab.attention.mask import CAUSAL


@dataclasses.dataclass(frozen=True)
class Identity(Attention):
  projections: ClassVar[str] = "vo"

  def claims(self) -> Claims:
    return Claims(
      masks=EVERY_MASK, cross=False, supports_gqa=False, exactness="other", time_exponent=1, state_exponent=0
    )

  def pattern(self, params, i, j):
    return i == j

  def attend(self, params, q, k, v, call: Call):
    mask, positions, T = call.mask, call.positions, v.shape[1]
    i, j = positions.queries(T), positions.keys(T)
    readable = jax.vmap(mask.pattern, 1, 1)(i[..., None], j[..., None])[..., 0, 0, 0]
    for valid in (mask.q_valid, mask.kv_valid):
      readable = readable if valid is None else readable & valid
    if mask.q_segments is not None:
      readable = readable & (mask.q_segments == mask.k_segments)
    readable = readable[:, :, None, None]
    if mask.explicit is not None:
      diagonal = jnp.diagonal(jnp.broadcast_to(mask.explicit, (*mask.explicit.shape[:2], T, T)), axis1=2, axis2=3)
      readable = readable & jnp.swapaxes(diagonal, 1, 2)[..., None]
    return jnp.where(readable, v, 0.0)

  def init_state(self, batch, dims, dtype):
    return {}

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    check_extend(self, mask, lengths)
    real = jnp.ones((1, v.shape[1]), bool) if lengths is None else jnp.arange(v.shape[1])[None] < lengths[:, None]
    return state, jnp.where(real[:, :, None, None], v, 0.0)
