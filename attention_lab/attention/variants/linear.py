"""Linear attention with φ(x) = elu(x) + 1 (Katharopoulos et al. 2020, https://arxiv.org/abs/2006.16236, section 3.2.1).

    out_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j),   q and k unscaled

Time and memory O(T·H·V), causal in chunks; decoding state H × (V + 1) a head. Honours causal, padding and segments in
one pass each; refuses windows, prefixes, explicit masks and biases, for there is no logit to put them on.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention

KEY_SHIFT = 44.0  # logarithm of a factor of all key features: those of −130 … 10⁹ are within the range of float32


@dataclasses.dataclass(frozen=True)
class Linear(LinearAttention):
  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    q, k = q.astype(dtype), k.astype(dtype)
    largest = jax.lax.stop_gradient(jnp.minimum(jnp.max(q, axis=-1, keepdims=True), 0.0))
    return _elu_plus_one(q, -largest), _elu_plus_one(k, KEY_SHIFT)

  def num_features(self, dims: Dims) -> int:
    return dims.head


def _elu_plus_one(x, shift):
  """(elu(x) + 1) · exp(shift), without the cancellation of exp(x) − 1 + 1; shift is 0 where a row has an x above 0."""
  below = jnp.where(x > 0.0, 0.0, x)
  return jnp.where(x > 0.0, (x + 1.0) * jnp.exp(shift), jnp.exp(below + shift))
