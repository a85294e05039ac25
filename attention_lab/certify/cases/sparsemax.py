"""Sparsemax attention: the Euclidean projection of the logits onto the simplex, in place of softmax.

Martins & Astudillo 2016 (From Softmax to Sparsemax, arXiv 1602.02068), eq. 2: argmin_p |p − z|² over p ≥ 0, Σ p = 1;
Proposition 1 and Algorithm 1: p = max(z − τ, 0), k(z) = max {k: 1 + k z_(k) > Σ_{j ≤ k} z_(j)} of the sorted z,
τ = (Σ_{j ≤ k(z)} z_(j) − 1) / k(z).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, row_sum
from attention_lab.certify.oracle_shared import scaled_logit

SPECS = ("sparsemax",)
LIMITS = ()  # its class takes every value of its fields


def sparsemax(z: Sequence[float]) -> list[float]:
  """The projection of z onto the simplex, by sorting."""
  shifted = [x - max(z) for x in z]
  total, threshold = 0.0, 0.0
  for k, x in enumerate(sorted(shifted, reverse=True), start=1):
    total += x
    if 1.0 + k * x > total:
      threshold = (total - 1.0) / k
  return [max(x - threshold, 0.0) for x in shifted]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention by sparsemax over the readable keys, [T, N, V]."""
  del params
  return row_sum(example, scaled_logit(variant, example), sparsemax)
