"""cosFormer: linear attention whose weights fall with distance as a cosine.

Qin et al. 2022, https://arxiv.org/abs/2202.08791, section 3.2, equations 10 to 12.

    out_i = Σ_j w_ij v_j / Σ_j w_ij,   w_ij = relu(q_i)·relu(k_j) cos(π/2 · (i − j) / M)
    φ(x, t) = [relu(x) cos(πt / 2M), relu(x) sin(πt / 2M)],   w_ij = φ(q_i, i)·φ(k_j, j)

M is max_len: farther apart the cosine, and so a weight, would be negative. Time and memory O(T·H·V), causal in chunks;
decoding state 2H × (V + 1) a head and the number of tokens. Honours causal, padding and segments; refuses windows,
prefixes, explicit masks and biases. A query all of whose weights are 0 gets zeros. Departure: M is one for all
sequences, where the authors' code takes the length of each batch.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Claims, Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Cosformer(LinearAttention):
  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), encodes_positions=True)

  def init(self, key, dims: Dims):
    return {"fixed": {"length": jnp.asarray(float(dims.max_len))}}

  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    return jax.nn.relu(q.astype(dtype)), jax.nn.relu(k.astype(dtype))

  def encode_positions(self, params, features, positions):
    angle = positions.astype(features.dtype) * (0.5 * jnp.pi / params["fixed"]["length"].astype(features.dtype))
    angle = angle[:, :, None, None]
    return jnp.concatenate([features * jnp.cos(angle), features * jnp.sin(angle)], axis=-1)

  def num_features(self, dims: Dims) -> int:
    return 2 * dims.head
