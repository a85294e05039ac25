"""1.5-entmax attention, halfway between softmax and sparsemax.

Peters et al. 2019 (Sparse Sequence-to-Sequence Models, arXiv 1905.05702): p = max(z / 2 − τ, 0)² with the τ at which
Σ p = 1. Exactly, by sorting (Algorithm 2): with M and S the mean and the sum of squared deviations of the k largest
x = z / 2, τ_k = M − √((1 − S) / k), and k is the largest with τ_k ≤ x_(k).
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, row_sum
from attention_lab.certify.oracle_shared import scaled_logit

SPECS = ("entmax",)
LIMITS = ()  # its class takes every value of its fields


def entmax(z: Sequence[float]) -> list[float]:
  """1.5-entmax of z, by sorting."""
  halves = [(x - max(z)) / 2.0 for x in z]
  descending, threshold = sorted(halves, reverse=True), 0.0
  for k in range(1, len(z) + 1):
    mean = sum(descending[:k]) / k
    spread = sum((x - mean) ** 2 for x in descending[:k])
    if spread <= 1.0 and mean - math.sqrt((1.0 - spread) / k) <= descending[k - 1]:
      threshold = mean - math.sqrt((1.0 - spread) / k)
  return [max(x - threshold, 0.0) ** 2 for x in halves]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention by 1.5-entmax over the readable keys, [T, N, V]."""
  del params
  return row_sum(example, scaled_logit(variant, example), entmax)
