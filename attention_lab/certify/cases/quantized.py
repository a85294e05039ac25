"""Quantised attention: logits out of queries and keys that are rounded to a few bits, block by block.

Zhang et al. 2025 (SageAttention, arXiv 2410.02367), §3: a block x becomes round(x / δ) with δ = max|x| / 127 for 8
bits; softmax(q̂·k̂ / √H) v. Here a block is a run of channels in one row of q or k, where the paper's is a tile or
a token; keys are not smoothed by their mean, and values are not rounded.
"""

import dataclasses
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, softmax_mean
from attention_lab.certify.oracle_shared import scaled_logit

SPECS = ("quantized(bits=4, block=2)",)
LIMITS = (
  ("quantized(bits=2)", "quantized(bits=1)"),
  ("quantized(bits=16)", "quantized(bits=17)"),
  ("quantized(block=1)", "quantized(block=0)"),
)
GROWS = ("bits", (3, 8))


def quantize(row: np.ndarray, bits: int, block: int) -> np.ndarray:
  """δ round(x / δ), halves to even, in blocks of `block` channels, the last one shorter; [H] -> [H]."""
  out = np.zeros(len(row))
  for start in range(0, len(row), block):
    channels = range(start, min(start + block, len(row)))
    largest = max(abs(float(row[h])) for h in channels)
    step = largest / (2 ** (bits - 1) - 1) if largest > 0.0 else 1.0
    for h in channels:
      out[h] = step * round(float(row[h]) / step)
  return out


def surrogate(variant: Any, params: dict, example: Example, base: Example) -> np.ndarray:
  """The attention of which the straight-through gradient at `base` is the gradient, [T, N, V].

  Each x of the example's q and k counts as Q(base's x) + (x − base's x).
  """
  del params

  def moved(array: np.ndarray, origin: np.ndarray) -> np.ndarray:
    out = np.zeros(array.shape)
    for token, head in np.ndindex(*array.shape[:2]):
      rounded = quantize(origin[token, head], variant.bits, variant.block)
      out[token, head] = rounded + (array[token, head] - origin[token, head])
    return out

  rounded = dataclasses.replace(example, q=moved(example.q, base.q), k=moved(example.k, base.k))
  return softmax_mean(rounded, scaled_logit(variant, rounded))


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention with rounded queries and keys, [T, N, V]."""
  return surrogate(variant, params, example, example)
