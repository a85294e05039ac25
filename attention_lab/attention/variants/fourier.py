"""Fourier mixing, FNet.

Lee-Thorp et al. 2021, https://arxiv.org/abs/2105.03824, section 3.2. A control without attention or parameters.

    out = Re(F_seq(F_hidden(x))),   F the discrete Fourier transform, not normalised

It reads the layer's input and has no projections at all. Each example is transformed over its own number n of valid
tokens, in array order, by Bluestein's chirps: rs = (r² + s² − (r − s)²) / 2 makes a transform of any length a
convolution (https://doi.org/10.1109/TAU.1970.1162132). Time O(T·log T), memory O(T). Honours padding, up to 65,535
tokens. Every place of the transform depends on the whole sequence, so every other mask is refused, and with them
decoding, biases and cross-attention.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.families.token_mixing import Mixer

LONGEST = 2**16 - 1  # the most tokens of a padded row: their squared rank fits into 32 bits


@dataclasses.dataclass(frozen=True)
class Fourier(Mixer):
  def mix(self, params, x, valid):
    if valid is not None and x.shape[1] > LONGEST:
      raise ValueError(f"Fourier counts rows of their own length up to {LONGEST} tokens, not {x.shape[1]}")
    mixed = jnp.fft.fft(x, axis=2)
    if valid is None:
      return jnp.fft.fft(mixed, axis=1).real
    return jax.vmap(_transform)(mixed, jnp.broadcast_to(valid, x.shape[:2])).real


def _transform(x, valid):
  """The transform over the valid rows of x `T D`, with zeros at the others."""
  T = len(x)
  rank, count = jnp.cumsum(valid) - 1, jnp.sum(valid)
  packed = jnp.zeros_like(x).at[jnp.where(valid, rank, T)].set(x, mode="drop")
  index = jnp.arange(T, dtype=jnp.uint32)
  square = (index * index) % jnp.maximum(2 * count, 1).astype(jnp.uint32)
  angle = square.astype(x.real.dtype) * (jnp.pi / jnp.maximum(count, 1).astype(x.real.dtype))
  chirp = jnp.exp(-1j * angle)
  size = 2 * T
  kernel = jnp.zeros(size, chirp.dtype).at[:T].set(chirp.conj()).at[size - T + 1 :].set(chirp.conj()[:0:-1])
  spectrum = jnp.fft.fft(packed * chirp[:, None], size, axis=0) * jnp.fft.fft(kernel)[:, None]
  out = jnp.fft.ifft(spectrum, axis=0)[:T] * chirp[:, None]
  return jnp.where(valid[:, None], out[jnp.where(valid, rank, 0)], 0.0)
