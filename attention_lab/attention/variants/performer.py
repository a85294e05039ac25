"""Performer: softmax attention approximated by positive random features, FAVOR+.

Choromanski et al. 2021, https://arxiv.org/abs/2009.14794.

    φ(x) = exp(Wx' − ‖x'‖²/2) / √M,   x' = x / H^¼,   E[φ(q)·φ(k)] = exp(q·k / √H)      (lemma 1, section 2.4)

The rows of W are orthogonal within blocks of H and as long as Gaussian vectors (section 2.4); `init` draws them once,
they are not redrawn. Time and memory O(T·M·V); decoding state M × (V + 1) a head. Honours causal, padding and
segments; refuses the rest. Departures: queries are stabilised by their largest exponent and keys by the largest of
each feature, which cancel. Under a causal mask, segments or in decoding keys are not, since a maximum over all keys
would leak the future: there exp(w·x − ‖x‖²/2) ≤ exp(‖w‖²/2) bounds them, and a key with ‖k‖² / (2√H) above 87 has
weight 0 in float32. The factor 1/√M cancels and is left out.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Claims, Dims, logits_dtype
from attention_lab.attention.engines import linear_scan
from attention_lab.attention.engines.flash.operands import finite_max
from attention_lab.attention.families.feature_map import LinearAttention
from attention_lab.attention.families.segment_mean import valid_keys


@dataclasses.dataclass(frozen=True)
class Performer(LinearAttention, at_least_one=("features",)):
  resizable: ClassVar[tuple[str, ...]] = ("features",)

  features: int = 64  # M

  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), exactness="approximate")

  def init(self, key, dims: Dims):
    """The orthogonal directions `M H` of the random features, shared by all heads."""
    directions, lengths = jax.random.split(key)
    blocks = -(-self.features // dims.head)
    rows = jax.random.orthogonal(directions, dims.head, (blocks,)).reshape(-1, dims.head)[: self.features]
    norms = jnp.linalg.norm(jax.random.normal(lengths, rows.shape), axis=-1, keepdims=True)
    return {"fixed": {"directions": rows * norms}}

  def attend(self, params, q, k, v, call):
    if call.mask.causal or call.mask.q_segments is not None:
      return super().attend(params, q, k, v, call)
    q, k = self._exponents(params, q, k)
    k = jnp.where(valid_keys(call, k.shape[1])[:, :, None, None], k, -jnp.inf)
    largest = jax.lax.stop_gradient(finite_max(k.max(axis=1, keepdims=True)))
    q = _stabilised(q + jnp.repeat(largest, q.shape[2] // k.shape[2], axis=2))
    out = linear_scan.full(linear_scan.Features(q, jnp.exp(k - largest), v))
    return out if call.mask.q_valid is None else jnp.where(call.mask.q_valid[:, :, None, None], out, 0.0)

  def feature_maps(self, params, q, k, v):
    q, k = self._exponents(params, q, k)
    return _stabilised(q), jnp.exp(k)

  def num_features(self, dims: Dims) -> int:
    return self.features

  def _exponents(self, params, *arrays):
    """The logarithms of the features of each array."""
    dtype = logits_dtype(*arrays)
    shrunk = (array.astype(dtype) * array.shape[-1] ** -0.25 for array in arrays)
    directions = params["fixed"]["directions"].astype(dtype)
    return [jnp.einsum("btnh,mh->btnm", x, directions) - 0.5 * jnp.sum(x * x, axis=-1, keepdims=True) for x in shrunk]


def _stabilised(exponents):
  """Features, divided by the largest of each token."""
  return jnp.exp(exponents - jax.lax.stop_gradient(exponents.max(axis=-1, keepdims=True)))
