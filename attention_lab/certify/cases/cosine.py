"""Cosine attention: queries and keys of unit length, and a learned scale.

Henry et al. 2020 (Query-Key Normalization for Transformers, arXiv 2010.04245): softmax(g · q̂·k̂) v with q̂ = q / |q|,
k̂ = k / |k|, and one learned scalar g in place of 1 / √H.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, softmax_mean
from attention_lab.certify.oracle_shared import unit

SPECS = ("cosine",)
LIMITS = ()  # its class takes every value of its fields


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"scale": []}; the norm is √(Σ x² + 1e-6); [T, N, V]."""
  del variant

  def logit(n: int, t: int, s: int) -> float:
    q, k = unit(example.q[t, n]), unit(example.k[s, kv_head(example, n)])
    cosine = sum(float(a * b) for a, b in zip(q, k, strict=True))
    return float(params["scale"]) * cosine + bias(example, n, t, s)

  return softmax_mean(example, logit)
