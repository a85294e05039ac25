"""cosFormer: linear attention with relu features, weighted by the cosine of the distance.

Qin et al. 2022 (cosFormer: Rethinking Softmax in Attention, arXiv 2202.08791), §3.3, eq. 10: the similarity of i and j
is relu(q_i)·relu(k_j) cos(π/2 · (i − j) / M), with M the longest sequence; eqs. 11 and 12 split the cosine for linear
time. Normalised by the sum over readable keys (eq. 4); a row whose sum is 0 gives zeros. Not scaled.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, row_sum
from attention_lab.certify.oracle_shared import shares

SPECS = ("cosformer(chunk=4)",)
LIMITS = (("cosformer(chunk=1)", "cosformer(chunk=0)"),)


def cosine(distance: int, length: float) -> float:
  """cos(π/2 · distance / length), exactly 0 at odd multiples of the length."""
  return 0.0 if distance % (2 * length) == length else math.cos(math.pi / 2 * distance / length)


def fixed(variant: Any, dims: Any) -> dict:
  """M of eq. 10, the longest sequence."""
  del variant
  return {"length": float(dims.max_len)}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"length": []}}, which holds M, pair by pair, [T, N, V]."""
  del variant
  refuse_bias(example, "cosformer")
  length = float(params["fixed"]["length"])

  def similarity(n: int, t: int, s: int) -> float:
    pairs = zip(example.q[t, n], example.k[s, kv_head(example, n)], strict=True)
    product = sum(max(0.0, float(a)) * max(0.0, float(b)) for a, b in pairs)
    return product * cosine(int(example.i[t]) - int(example.j[s]), length)

  return row_sum(example, similarity, shares)
