"""Linear attention with φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236, section 3.2.1).

    out_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j),   q and k unscaled

Time and memory O(T·H·V), causal in chunks; decoding state H × (V + 1) a head. Honours causal, padding and segments in
one pass each; refuses windows, prefixes, explicit masks and biases, for there is no logit to put them on.
"""

import dataclasses

import jax

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Linear(LinearAttention):
  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    return jax.nn.elu(q.astype(dtype)) + 1.0, jax.nn.elu(k.astype(dtype)) + 1.0

  def num_features(self, dims: Dims) -> int:
    return dims.head
