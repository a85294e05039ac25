"""Linear attention by the second-order Taylor series of the softmax kernel.

Arora et al. 2024 (Based, arXiv 2402.18668): exp(s) ≈ 1 + s + s² / 2 with s = q·k / √H, normalised over the readable
keys; as 1 + s + s² / 2 ≥ 1 / 2 the weights are positive. The chunk length of an implementation changes nothing here.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, dot, refuse_bias, row_sum
from attention_lab.certify.oracle_shared import shares

SPECS = ("taylor(chunk=4)",)
LIMITS = (("taylor(chunk=1)", "taylor(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with the weights 1 + s + s² / 2, pair by pair, [T, N, V]."""
  del variant, params
  refuse_bias(example, "taylor")

  def similarity(n: int, t: int, s: int) -> float:
    x = dot(example, n, t, s) / math.sqrt(example.q.shape[2])
    return 1.0 + x + x * x / 2.0

  return row_sum(example, similarity, shares)
