"""Linformer: keys and values projected along the sequence to a fixed number of slots.

Wang et al. 2020, https://arxiv.org/abs/2006.04768, section 4.

    out_i = Σ_r softmax_r(q_i·k̄_r / √H) v̄_r,   k̄_r = Σ_j E_jr k_j,   v̄_r = Σ_j F_jr v_j      (equation 7)

E (`keys`) and F (`values`), max_len × R, are shared by all heads ("headwise sharing") and indexed by the key's place
in the sequence. Time and memory O(T·R). Honours padding: padded keys are left out of both projections. Refuses causal
and every other pattern, for a slot mixes all places, and so decoding and a bias. Sequences longer than max_len are
refused.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, Call, Claims, Dims, logits_dtype
from attention_lab.attention.engines.layout import heads_last
from attention_lab.attention.families import segment_mean, softmax


@dataclasses.dataclass(frozen=True)
class Linformer(Attention, at_least_one=("rank",)):
  resizable: ClassVar[tuple[str, ...]] = ("rank",)

  rank: int = 32  # R, slots

  def claims(self) -> Claims:
    return Claims(masks=frozenset({"q_valid", "kv_valid"}), decode=False, exactness="other", time_exponent=1)

  def init(self, key, dims: Dims):
    keys, values = jax.random.split(key)
    shape = (dims.max_len, self.rank)
    return {name: jax.random.normal(k, shape) * self.rank**-0.5 for name, k in (("keys", keys), ("values", values))}

  def attend(self, params, q, k, v, call: Call):
    S = k.shape[1]
    if len(params["keys"]) < S:
      raise ValueError(
        f"Linformer has projections for {len(params['keys'])} positions and was given {S} keys: raise max_len"
      )
    dtype = logits_dtype(q, k, v)
    valid = segment_mean.valid_keys(call, S)
    k, v = (jnp.where(valid[:, :, None, None], array, 0.0).astype(dtype) for array in (k, v))
    k = jnp.einsum("bskh,sr->brkh", k, params["keys"][:S].astype(dtype))
    v = jnp.einsum("bskv,sr->bkrv", v, params["values"][:S].astype(dtype))
    weights = softmax.attention_weights(q, k, q.shape[-1] ** -0.5)
    return heads_last(jnp.einsum("bkgtr,bkrv->bkgtv", weights, v), call.mask.q_valid)
