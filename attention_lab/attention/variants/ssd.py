"""State space duality, Mamba-2 (Dao and Gu 2024, https://arxiv.org/abs/2405.21060, section 6).

    S_t = exp(−exp(A) Δ_t) S_{t−1} + Δ_t k_t v_tᵀ,   out_t = S_tᵀ q_t / √H,   Δ_t = softplus(x_t w + b)

q, k and v are the paper's C, B and X; `kernel` (D K), `bias` (K) and `rate` (A, K) are a key head's. exp(A) starts
uniform in 1 … 16 and softplus(b) log-uniform in 0.001 … 0.1. Time O(T·(H·V + (H + V)·chunk)) and memory O(T), in
chunks; decoding state H × V a key head. Honours causal, padding and segments: a hidden key is skipped. Refuses
windows, prefixes, explicit masks, biases and cross-attention. Departures: queries are scaled by 1/√H; the short
convolution, the skip D, the gate and the norm are parts of `published(ssd)`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims, local_heads
from attention_lab.attention.families.gated_scan import GatedScan, Gates, mamba2_init


@dataclasses.dataclass(frozen=True)
class Ssd(GatedScan):
  published: ClassVar[str] = "nope>conv>self>skip>gate>norm(over='layer')"

  def init(self, key, dims: Dims):
    kernel, scales = jax.random.split(key)
    weights = jax.random.normal(kernel, (dims.model, dims.kv_heads)) * dims.model**-0.5
    return {"kernel": weights, **mamba2_init(scales, dims.kv_heads)}

  def gates(self, params, k, x):
    rate = jnp.exp(local_heads(params["rate"], k.shape[2], axis=0).astype(k.dtype))
    step = jax.nn.softplus(self.project(params, x, k))[..., None]
    return Gates(step * k, -rate[None, None, :, None] * step)
