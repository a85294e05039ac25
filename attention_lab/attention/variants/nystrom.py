"""Nyströmformer: softmax attention approximated from its values at a few landmarks.

Xiong et al. 2021, https://arxiv.org/abs/2102.03902, equations 13 and 14.

    out = F Z B v,   F = softmax(s·q k̃ᵀ),   A = softmax(s·q̃ k̃ᵀ),   B = softmax(s·q̃ kᵀ),   Z ≈ A⁺
    Z ← ¼ Z (13 − A Z (15 − A Z (7 − A Z))),   Z₀ = Aᵀ / (‖A‖₁ ‖A‖∞),   s = 1/√H

q̃ and k̃ are means over M runs of valid tokens, as equal in length as can be; a landmark without a token is left out.
Time and memory O(T·M + M³). Honours padding; refuses causal and every other pattern, for a landmark mixes the tokens
of its run, and so decoding and a bias. A row depends on the other queries through q̃. Departure: no depthwise
convolution of the values beside it.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, Call, Claims
from attention_lab.attention.engines.layout import heads_last
from attention_lab.attention.families import segment_mean, softmax


@dataclasses.dataclass(frozen=True)
class Nystrom(Attention, at_least_one=("landmarks", "iterations")):
  resizable: ClassVar[tuple[str, ...]] = ("landmarks",)

  landmarks: int = 32  # M
  iterations: int = 6  # steps towards the pseudo-inverse
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    masks = frozenset({"q_valid", "kv_valid"})
    return Claims(masks=masks, decode=False, per_query=False, exactness="approximate", time_exponent=1)

  def attend(self, params, q, k, v, call: Call):
    scale, valid = softmax.scale(self.scale, q), segment_mean.valid_keys(call, k.shape[1])
    q_valid = jnp.ones((1, q.shape[1]), bool) if call.mask.q_valid is None else call.mask.q_valid
    middle_q, has_q = self._means(q, q_valid)
    middle_k, has_k = self._means(k, valid)
    inner = softmax.attention_weights(middle_q, middle_k, scale, has_q[:, :, None] & has_k[:, None])
    gathered = softmax.attention_weights(middle_q, k, scale, has_q[:, :, None] & valid[:, None])
    gathered = jnp.einsum("bkgms,bskv->bkgmv", gathered, v.astype(gathered.dtype))
    spread = softmax.attention_weights(q, middle_k, scale, has_k[:, None])
    return heads_last(spread @ (_inverse(inner, self.iterations) @ gathered), call.mask.q_valid)

  def _means(self, array, valid):
    """The landmarks `B M N H` of one side, and which have a token `#B M`."""
    rank = jnp.cumsum(valid, axis=1, dtype=jnp.int32) - 1
    count = jnp.maximum(jnp.sum(valid, axis=1, keepdims=True, dtype=jnp.int32), 1)
    (means,), occupied = segment_mean.by_id(rank * self.landmarks // count, self.landmarks, valid, array)
    return means, occupied


def _inverse(a, iterations):
  """The pseudo-inverse of each matrix, by `iterations` steps of third order; rows and columns of zeros stay so."""
  largest = jnp.max(jnp.sum(a, axis=-2), axis=-1) * jnp.max(jnp.sum(a, axis=-1), axis=-1)
  z = jnp.swapaxes(a, -1, -2) / jnp.where(largest == 0.0, 1.0, largest)[..., None, None]
  identity = jnp.broadcast_to(jnp.eye(a.shape[-1], dtype=a.dtype), a.shape)

  def product(x, y):
    return jnp.matmul(x, y, precision="highest")

  def step(z, _):
    az = product(a, z)
    return 0.25 * product(z, 13.0 * identity - product(az, 15.0 * identity - product(az, 7.0 * identity - az))), None

  return jax.lax.scan(step, z, length=iterations)[0]
