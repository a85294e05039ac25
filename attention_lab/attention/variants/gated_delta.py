"""The gated delta rule (Yang et al. 2025, https://arxiv.org/abs/2412.06464, section 3).

    S_t = α_t S_{t−1} + β_t k̂_t (v_t − α_t S_{t−1}ᵀ k̂_t)ᵀ,   out_t = S_tᵀ q_t / √H
    α_t = exp(−exp(A) softplus(x_t w_a + b_a)),   β_t = sigmoid(x_t w_b + b_b),   k̂ = k / √(‖k‖² + 1e-6)

`decay` holds w_a (`kernel`, D K), b_a (`bias`, K) and A (`rate`, K), `write` holds w_b and b_b. exp(A) starts uniform
in 1 … 16 and softplus(b_a) log-uniform in 0.001 … 0.1, as Mamba-2 does, from which the paper takes α. Time O(T·(H·V +
(H + V + chunk)·chunk)) and memory O(T), in chunks, each with one triangular system; decoding state H × V a key head.
Honours causal, padding and segments: a hidden key is skipped. Refuses windows, prefixes, explicit
masks, biases and cross-attention. Departures: queries are scaled by 1/√H and neither normalised nor passed through
SiLU: short convolutions, these norms, output norm and output gate are parts of `published(gated_delta)`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims, local_heads
from attention_lab.attention.families.gated_scan import GatedScan, Gates, mamba2_init
from attention_lab.attention.families.qk_transforms import l2_normalize


@dataclasses.dataclass(frozen=True)
class GatedDelta(GatedScan):
  published: ClassVar[str] = "nope>conv>qk_norm(kind='l2')>self>norm>gate"

  def init(self, key, dims: Dims):
    decay, beta, scales = jax.random.split(key, 3)
    D, K = dims.model, dims.kv_heads
    kernels = (jax.random.normal(kernel, (D, K)) * D**-0.5 for kernel in (decay, beta))
    return {
      "decay": {"kernel": next(kernels), **mamba2_init(scales, K)},
      "write": {"kernel": next(kernels), "bias": jnp.zeros(K)},
    }

  def gates(self, params, k, x):
    rate = jnp.exp(local_heads(params["decay"]["rate"], k.shape[2], axis=0).astype(k.dtype))
    log_decay = -rate[None, None] * jax.nn.softplus(self.project(params["decay"], x, k))
    beta = jax.nn.sigmoid(self.project(params["write"], x, k))
    return Gates(l2_normalize(k), log_decay[..., None], beta)
