"""Linear attention with φ(x) = max(x, 0).

Cai et al. 2023, https://arxiv.org/abs/2205.14756, section 3.1 (EfficientViT).

    out_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j)

A row whose weights are all 0 gives zeros. Time and memory O(T·H·V); decoding state H × (V + 1) a head. Honours
causal, padding and segments; refuses the rest.
"""

import dataclasses

import jax

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Relu(LinearAttention):
  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    return jax.nn.relu(q.astype(dtype)), jax.nn.relu(k.astype(dtype))

  def num_features(self, dims: Dims) -> int:
    return dims.head
