"""Retention (Sun et al. 2023, https://arxiv.org/abs/2307.08621, section 2.1).

    out_i = Σ_{j≤i} γ_k^(i−j) (q_i·k_j / √H) v_j,   γ_k = 1 − 2^(−5−k) for key head k

γ (`decay`, K) is fixed, as in the paper. Time O(T·(H·V + (H + V)·chunk)) and memory O(T), in chunks; decoding state
H × V a key head. Honours causal, padding and segments: a hidden key is skipped, so that i − j counts
the tokens that are there and not positions. Refuses windows, prefixes, explicit masks, biases and cross-attention.
Departures: the group norm and the swish gate are parts of `published(retention)`; left out is the normalisation of the
weights, for which its group norm makes up.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import Dims, local_heads
from attention_lab.attention.families.gated_scan import GatedScan, Gates


@dataclasses.dataclass(frozen=True)
class Retention(GatedScan):
  published: ClassVar[str] = "self>norm>gate"

  def init(self, key, dims: Dims):
    return {"fixed": {"decay": 1.0 - 2.0 ** (-5.0 - jnp.arange(dims.kv_heads, dtype=jnp.float32))}}

  def gates(self, params, k, x):
    decay = local_heads(params["fixed"]["decay"], k.shape[2], axis=0).astype(k.dtype)
    return Gates(k, log_decay=jnp.log(decay)[None, None, :, None])
