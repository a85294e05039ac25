"""FNet: a two-dimensional Fourier transform in place of attention.

Lee-Thorp et al. 2021 (arXiv 2105.03824), §3: y = Re(F_seq(F_hidden(x))), with the unnormalised discrete transform
X_k = Σ_n x_n exp(−2πi·n·k / L) along the model width, then along the sequence. It has no heads and takes no mask
but padding, which is taken out before the transform, whose length is then that of what remains; padding gives
zeros.
"""

import cmath
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import key_index, key_input

SPECS = ("fourier",)


def transform(signal: np.ndarray) -> np.ndarray:
  """The unnormalised discrete Fourier transform of [L], by its definition."""
  length = len(signal)
  out = np.zeros(length, complex)
  for k in range(length):
    for n in range(length):
      out[k] += signal[n] * cmath.exp(-2j * cmath.pi * n * k / length)
  return out


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """The real part of the transform over both axes of the valid tokens, zeros elsewhere, [T, D]."""
  del variant, params
  refuse_bias(example, "fourier")
  x, width = key_input(example), example.x.shape[1]
  asked, valid = (np.asarray(example.readable.any(axis=axes)) for axes in ((0, 2), (0, 1)))
  if (example.readable != np.outer(asked, valid)).any():
    raise ValueError("fourier mixes the whole sequence: it takes no mask but q_valid and kv_valid")
  tokens = [int(s) for s in np.flatnonzero(valid)]
  mixed = np.zeros((len(tokens), width), complex)
  for index, s in enumerate(tokens):
    mixed[index] = transform(x[s])
  for d in range(width):
    mixed[:, d] = transform(mixed[:, d])
  out = np.zeros((len(asked), width))
  for t in range(len(asked)):
    s = key_index(example, t)
    if asked[t] and s in tokens:
      out[t] = mixed[tokens.index(s)].real
  return out
