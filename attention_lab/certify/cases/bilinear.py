"""Bilinear attention: a matrix between query and key.

Luong et al. 2015 (Effective Approaches to Attention-based Neural Machine Translation, arXiv 1508.04025), §3.1, the
score "general": q·(W k), unscaled, here with one W for each head.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, softmax_mean

SPECS = ("bilinear",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"kernel": [N, H, H]}}: Σ_ab q[a] W[n, a, b] k[b]; [T, N, V]."""
  del variant
  kernel, width = params["per_head"]["kernel"], example.q.shape[2]

  def logit(n: int, t: int, s: int) -> float:
    total = bias(example, n, t, s)
    for a in range(width):
      for b in range(width):
        total += float(example.q[t, n, a] * kernel[n, a, b] * example.k[s, kv_head(example, n), b])
    return total

  return softmax_mean(example, logit)
