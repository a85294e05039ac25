"""The delta rule, DeltaNet (Yang et al. 2024, https://arxiv.org/abs/2406.06484, sections 2.2 and 3).

    S_t = S_{t−1} + β_t k̂_t (v_t − S_{t−1}ᵀ k̂_t)ᵀ,   β_t = sigmoid(x_t w + b),   out_t = S_tᵀ q_t / √H

k̂ = k / √(‖k‖² + 1e-6): what the memory holds under a key is replaced and not added to. w (`kernel`, D K) and b
(`bias`, K) set how much of it. Time O(T·(H·V + (H + V + chunk)·chunk)) and memory O(T), in chunks, each with one
triangular system; decoding state H × V a key head. Honours causal, padding and segments: a hidden key
is skipped. Refuses windows, prefixes, explicit masks, biases and cross-attention. Departures: queries are scaled by
1/√H and neither normalised nor passed through SiLU: short convolutions, these norms and the output norm are parts of
`published(delta_rule)`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims
from attention_lab.attention.families.gated_scan import GatedScan, Gates
from attention_lab.attention.families.qk_transforms import l2_normalize


@dataclasses.dataclass(frozen=True)
class DeltaRule(GatedScan):
  published: ClassVar[str] = "nope>conv>qk_norm(kind='l2')>self>norm"

  def init(self, key, dims: Dims):
    kernel = jax.random.normal(key, (dims.model, dims.kv_heads)) * dims.model**-0.5
    return {"kernel": kernel, "bias": jnp.zeros(dims.kv_heads)}

  def gates(self, params, k, x):
    return Gates(l2_normalize(k), beta=jax.nn.sigmoid(self.project(params, x, k)))
