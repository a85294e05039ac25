"""Quantized attention: logits from queries and keys in few bits, a step width for each block of channels.

Zhang et al. 2025, SageAttention, https://arxiv.org/abs/2410.02367, section 4, in units of one token.

    out_i = Σ_j softmax_j(q̂_i·k̂_j / √H + b_ij) v_j,   x̂ = δ · round(x / δ),   δ = max|x| / (2^(bits − 1) − 1)

Each row of a head is cut into blocks of `block` channels with a δ each; ties round to even. The gradient goes straight
through the rounding, d x̂/dx = 1. Arithmetic is that of floating point: this is the error of quantization, not its
speed. Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask and a bias; refuses
nothing. Departures: the paper's blocks span tokens, and it takes the mean key away first; both would let a query see
later keys.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import AttentionOutput, logits_dtype
from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class Quantized(ScaledDotProduct, at_least_one=("block",)):
  bits: int = 8  # of a number, its sign counted
  block: int = 32  # channels that share a step width

  def __post_init__(self):
    super().__post_init__()
    if not 2 <= self.bits <= 16:
      raise ValueError(f"bits={self.bits} must lie within 2 … 16")

  def claims(self):
    return dataclasses.replace(super().claims(), exactness="approximate", straight_through=True)

  def attend(self, params, q, k, v, call):
    wide = tuple(array.astype(logits_dtype(q, k)) for array in (q, k))
    steps = tuple(self._rounded(jax.lax.stop_gradient(array)) for array in wide)
    errors, sizes = (sum(jnp.sum(a * a) for a in arrays) for arrays in ((steps[0] - wide[0], steps[1] - wide[1]), wide))
    q, k = (array + jax.lax.stop_gradient(step - array) for array, step in zip(wide, steps, strict=True))
    error = jnp.sqrt(jax.lax.stop_gradient(errors / jnp.where(sizes == 0.0, 1.0, sizes)))
    return AttentionOutput(super().attend(params, q, k, v, call), stats={"quantization_error": error})

  def _rounded(self, x):
    """The rounded x̂ of an array x `B T N H`."""
    H = x.shape[-1]
    size = min(self.block, H)
    blocks = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, -H % size))).reshape(*x.shape[:-1], -1, size)
    step = jnp.max(jnp.abs(blocks), axis=-1, keepdims=True) / (2.0 ** (self.bits - 1) - 1.0)
    step = jnp.where(step == 0.0, 1.0, step)
    return (step * jnp.round(blocks / step)).reshape(*x.shape[:-1], -1)[..., :H]
