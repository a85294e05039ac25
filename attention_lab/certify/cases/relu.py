"""Linear attention with the feature map max(x, 0).

Katharopoulos et al. 2020 (arXiv 2006.16236), §3.2, eq. 4, with the ReLU of generalised attention in Choromanski et
al. 2021 (arXiv 2009.14794): out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j), φ(x) = max(x, 0). A query of which
all weights are 0 gives 0. The chunk length of an implementation changes nothing here.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, row_sum
from attention_lab.certify.oracle_shared import shares

SPECS = ("relu(chunk=4)",)
LIMITS = (("relu(chunk=1)", "relu(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Linear attention of one example, pair by pair, [T, N, V]."""
  del variant, params
  refuse_bias(example, "relu")

  def similarity(n: int, t: int, s: int) -> float:
    pairs = zip(example.q[t, n], example.k[s, kv_head(example, n)], strict=True)
    return sum(max(float(a), 0.0) * max(float(b), 0.0) for a, b in pairs)

  return row_sum(example, similarity, shares)
