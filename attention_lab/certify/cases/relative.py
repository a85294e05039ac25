"""Relative position representations, on keys and on values.

Shaw et al. 2018 (arXiv 1803.02155), §3.1, eq. 3: z_i = Σ_j α_ij (v_j + a^V_ij), and eq. 4:
e_ij = q_i·(k_j + a^K_ij) / √H (regrouped in eq. 5); §3.2: a_ij = w[clip(j − i, −clip, clip)]. One table for keys and
one for values, shared over heads.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, scale, softmax_mean

SPECS = ("relative(clip=2)",)
LIMITS = (("relative(clip=1)", "relative(clip=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"keys": [2·clip + 1, H], "values": [2·clip + 1, V]}, [T, N, V]."""

  def row(t: int, s: int) -> int:
    distance = int(example.j[s]) - int(example.i[t])
    return max(-variant.clip, min(variant.clip, distance)) + variant.clip

  def logit(n: int, t: int, s: int) -> float:
    total = 0.0
    for h in range(example.q.shape[2]):
      key = example.k[s, kv_head(example, n), h] + params["keys"][row(t, s), h]
      total += float(example.q[t, n, h] * key)
    return scale(variant, example) * total + bias(example, n, t, s)

  def value(n: int, t: int, s: int) -> np.ndarray:
    return example.v[s, kv_head(example, n)] + params["values"][row(t, s)]

  return softmax_mean(example, logit, value)
