"""Performer: softmax attention approximated by positive random features, FAVOR+.

Choromanski et al. 2021, https://arxiv.org/abs/2009.14794.

    φ(x) = exp(Wx' − ‖x'‖²/2) / √M,   x' = x / H^¼,   E[φ(q)·φ(k)] = exp(q·k / √H)      (lemma 1, section 2.4)

The rows of W are orthogonal within blocks of H and as long as Gaussian vectors (section 2.4); `init` draws them once,
they are not redrawn. Time and memory O(T·M·V); decoding state M × (V + 1) a head. Honours causal, padding and
segments; refuses the rest. Departures: queries are stabilised by their own largest exponent, which cancels; keys are
not, since a maximum over all keys would leak the future, and exp(w·x − ‖x‖²/2) ≤ exp(‖w‖²/2) bounds them. A key with
‖k‖² / (2√H) above 87 underflows to weight 0 in float32. The factor 1/√M cancels and is left out.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Claims, Dims, logits_dtype
from attention_lab.attention.families.feature_map import LinearAttention


@dataclasses.dataclass(frozen=True)
class Performer(LinearAttention):
  resizable: ClassVar[tuple[str, ...]] = ("features",)

  features: int = 64  # M

  def __post_init__(self):
    super().__post_init__()
    if self.features < 1:
      raise ValueError(f"features={self.features} must be at least 1")

  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), exactness="approximate")

  def init(self, key, dims: Dims):
    """The orthogonal directions `M H` of the random features, shared by all heads."""
    directions, lengths = jax.random.split(key)
    blocks = -(-self.features // dims.head)
    rows = jax.random.orthogonal(directions, dims.head, (blocks,)).reshape(-1, dims.head)[: self.features]
    norms = jnp.linalg.norm(jax.random.normal(lengths, rows.shape), axis=-1, keepdims=True)
    return {"fixed": {"directions": rows * norms}}

  def feature_maps(self, params, q, k, v):
    dtype = logits_dtype(q, k)
    q, k = (_exponents(params["fixed"]["directions"].astype(dtype), array.astype(dtype)) for array in (q, k))
    return jnp.exp(q - jax.lax.stop_gradient(q.max(axis=-1, keepdims=True))), jnp.exp(k)

  def num_features(self, dims: Dims) -> int:
    return self.features


def _exponents(directions, x):
  x = x * x.shape[-1] ** -0.25
  return jnp.einsum("btnh,mh->btnm", x, directions) - 0.5 * jnp.sum(x * x, axis=-1, keepdims=True)
