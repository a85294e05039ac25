"""Disentangled attention: content to content, content to position, and position to content.

He et al. 2021 (DeBERTa, arXiv 2006.03654), §3.1, eq. 3: δ(i, j) = 0 where i − j ≤ −m, 2m − 1 where i − j ≥ m, else
i − j + m; eq. 4: q_i·k_j + q_i·K^r[δ(i, j)] + k_j·Q^r[δ(j, i)], scaled by 1 / √(3H). Each head has its own tables
K^r and Q^r, where the paper projects one table.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, softmax_mean

SPECS = ("disentangled(max_distance=2)",)
LIMITS = (("disentangled(max_distance=1)", "disentangled(max_distance=0)"),)


def bucket(distance: int, largest: int) -> int:
  """δ of a signed distance, the first position minus the second."""
  if distance <= -largest:
    return 0
  return 2 * largest - 1 if distance >= largest else distance + largest


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"keys": [N, 2m, H], "queries": [N, 2m, H]}}, m = max_distance; [T, N, V]."""
  tables, width = params["per_head"], example.q.shape[2]
  factor = 1.0 / math.sqrt(3 * width) if variant.scale is None else variant.scale

  def logit(n: int, t: int, s: int) -> float:
    q, k, total = example.q[t, n], example.k[s, kv_head(example, n)], 0.0
    distance = int(example.i[t]) - int(example.j[s])
    key_place = tables["keys"][n, bucket(distance, variant.max_distance)]
    query_place = tables["queries"][n, bucket(-distance, variant.max_distance)]
    for h in range(width):
      total += float(q[h] * k[h] + q[h] * key_place[h] + k[h] * query_place[h])
    return factor * total + bias(example, n, t, s)

  return softmax_mean(example, logit)
