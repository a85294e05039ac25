"""Scaled dot-product attention.

Vaswani et al. 2017 (arXiv 1706.03762), §3.2.1, eq. 1: softmax(q·kᵀ / √H) v.
Soft cap: Gemma 2 (arXiv 2408.00118), §2: logits ← cap · tanh(logits / cap), after scaling.
Grouped heads: Ainslie et al. 2023 (arXiv 2305.13245), §2.2.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, scale, softmax_mean

SPECS = ("softmax", "softmax(scale=0.3, soft_cap=2.0)")


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention of one example, [T, N, V]; the bias is added after scaling and capping."""
  del params

  def logit(n: int, t: int, s: int) -> float:
    scaled = scale(variant, example) * dot(example, n, t, s)
    if variant.soft_cap is not None:
      scaled = variant.soft_cap * math.tanh(scaled / variant.soft_cap)
    return scaled + bias(example, n, t, s)

  return softmax_mean(example, logit)
