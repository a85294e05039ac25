"""Talking-heads attention: heads are mixed linearly before and after the softmax.

Shazeer et al. 2020 (arXiv 2003.02436), §3, with h_k = h = h_v = N: logits'[m] = Σ_n logits[n] P[n, m],
weights'[m] = Σ_n softmax(logits')[n] W[n, m], out[m] = Σ_s weights'[m, s] v[m, s]. Scaling comes before the first
mixing; bias and mask come after it.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, kv_head, scale, softmax

SPECS = ("talking_heads",)
LIMITS = ()  # its class takes every value of its fields


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"logits": [N, N], "weights": [N, N]}, rows in, columns out, [T, N, V]."""
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for t in range(queries):
    weights = np.zeros((heads, keys))
    for m in range(heads):
      read = [s for s in range(keys) if example.readable[m, t, s]]
      mixed = []
      for s in read:
        logit = sum(scale(variant, example) * dot(example, n, t, s) * params["logits"][n, m] for n in range(heads))
        mixed.append(logit + bias(example, m, t, s))
      for s, weight in zip(read, softmax(mixed), strict=True):
        weights[m, s] = weight
    for m in range(heads):
      for s in range(keys):
        weight = sum(weights[n, s] * params["weights"][n, m] for n in range(heads))
        out[t, m] += weight * example.v[s, kv_head(example, m)]
  return out
