"""FNet: a two-dimensional Fourier transform in place of attention.

Lee-Thorp et al. 2021 (arXiv 2105.03824), §3: y = Re(F_seq(F_hidden(x))), with the unnormalised discrete transform
X_k = Σ_n x_n exp(−2πi·n·k / L) along the model width, then along the sequence. It has no heads and takes no mask.
"""

import cmath
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias

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
  """The real part of the transform over both axes of x, [T, D]."""
  del variant, params
  refuse_bias(example, "fourier")
  if not example.readable.all():
    raise ValueError("fourier mixes the whole sequence: it takes no mask")
  queries, width = example.x.shape
  mixed = np.zeros((queries, width), complex)
  for t in range(queries):
    mixed[t] = transform(example.x[t])
  for d in range(width):
    mixed[:, d] = transform(mixed[:, d])
  return mixed.real
