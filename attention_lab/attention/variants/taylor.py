"""Taylor linear attention of Based: the second-order series of the exponential as a feature map.

Arora et al. 2024, https://arxiv.org/abs/2402.18668, section 4.1.

    w_ij = 1 + s_ij + s_ij²/2,   s_ij = q_i·k_j / √H,   φ(x) = [1, x', x'⊗x' / √2],   x' = x / H^¼

Never negative, since 1 + s + s²/2 > 0. Time and memory O(T·H²·V); decoding state (1 + H + H²) × (V + 1) a head, so
take a small head width, as the paper does. Honours causal, padding and segments; refuses the rest.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Taylor(LinearAttention):
  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    return _series(q.astype(dtype)), _series(k.astype(dtype))

  def num_features(self, dims: Dims) -> int:
    return 1 + dims.head + dims.head**2


def _series(x):
  x = x * x.shape[-1] ** -0.25
  squares = (x[..., :, None] * x[..., None, :]).reshape(*x.shape[:-1], -1) * 0.5**0.5
  return jnp.concatenate([jnp.ones_like(x[..., :1]), x, squares], axis=-1)
