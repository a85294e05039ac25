"""Fourier mixing, FNet.

Lee-Thorp et al. 2021, https://arxiv.org/abs/2105.03824, section 3.2. A control without attention or parameters.

    out = Re(F_seq(F_hidden(x))),   F the discrete Fourier transform, not normalised

It reads the layer's input and has no projections at all. Time O(T·log T), memory O(T). Every place of the transform
depends on the whole sequence, so every mask is refused, and with them decoding, biases and cross-attention.
"""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import Attention, Claims, Refused


@dataclasses.dataclass(frozen=True)
class Fourier(Attention):
  projections: ClassVar[str] = ""

  def claims(self) -> Claims:
    return Claims(
      cross=False, decode=False, grouped=False, per_query=False, mixes_heads=True, exactness="other", time=1
    )

  def attend(self, params, q, k, v, call):
    if not call.positions.known:
      raise Refused("Fourier transforms places in the array and has no use for positions: leave positions out")
    x = call.x.astype(jnp.promote_types(call.x.dtype, jnp.float32))
    return jnp.fft.fft2(x, axes=(1, 2)).real.astype(call.x.dtype)
