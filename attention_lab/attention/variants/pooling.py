"""Pooling: every query takes the mean of the values that it may read, whatever they are. A control without attention.

    out_i = Σ_{j readable} v_j / |readable|

Softmax attention with all logits equal; compare the pooling mixer of MetaFormer (Yu et al. 2022,
https://arxiv.org/abs/2111.11418, section 3.2), whose window is local. Time and memory O(T·V); decoding state V + 1 a
head. Honours causal, padding and segments; refuses the rest.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import Claims, Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Pooling(LinearAttention):
  projections: ClassVar[str] = "vo"

  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), cross=False, supports_gqa=False)

  def feature_maps(self, params, q, k, v):
    ones = jnp.ones((*v.shape[:3], 1), logits_dtype(v))
    return ones, ones

  def num_features(self, dims: Dims) -> int:
    return 1
