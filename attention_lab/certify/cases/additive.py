"""Additive attention: a one-layer network scores each pair.

Bahdanau et al. 2015 (Neural Machine Translation by Jointly Learning to Align and Translate, arXiv 1409.0473), §3.1 and
appendix A.1.2: w·tanh(W s + U h), where W s and U h are the query and the key that the layer projects; one w per head.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, softmax_mean

SPECS = ("additive",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"vector": [N, H]}}, unscaled, [T, N, V]."""
  del variant
  vector = params["per_head"]["vector"]

  def logit(n: int, t: int, s: int) -> float:
    total = bias(example, n, t, s)
    for h in range(example.q.shape[2]):
      total += float(vector[n, h]) * math.tanh(example.q[t, n, h] + example.k[s, kv_head(example, n), h])
    return total

  return softmax_mean(example, logit)
