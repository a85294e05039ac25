"""Memorizing attention: a window of near keys, and the nearest neighbours among the keys before it, mixed by a gate.

Wu et al. 2022 (Memorizing Transformers, arXiv 2203.08913), §3.1 and §3.2: out = g · memory + (1 − g) · local with
g = σ(b) of one trained b per head. Local attention is a softmax over i − j < window, memory one over the `neighbours`
largest logits of i − j ≥ window; of several that tie with the last all are kept. Without a readable memory g is 0.
Here the memory is the same sequence, and gradients flow into it.
"""

from typing import Any

import numpy as np

from attention_lab.certify.cases.top_k import weights
from attention_lab.certify.oracle import Example, kv_head, softmax
from attention_lab.certify.oracle_shared import logistic, readable_keys, scaled_logit

SPECS = ("memorizing(window=2, neighbours=2)",)
LIMITS = (("memorizing(window=1)", "memorizing(window=0)"), ("memorizing(neighbours=1)", "memorizing(neighbours=0)"))


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"gate": [N]}}; the bias is added before neighbours are chosen, [T, N, V]."""
  heads, queries, _ = example.readable.shape
  logit = scaled_logit(variant, example)
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    gate = logistic(float(params["per_head"]["gate"][n]))
    for t in range(queries):
      read = readable_keys(example, n, t)
      near = [s for s in read if example.i[t] - example.j[s] < variant.window]
      far = [s for s in read if example.i[t] - example.j[s] >= variant.window]
      local = softmax([logit(n, t, s) for s in near])
      memory = weights([logit(n, t, s) for s in far], variant.neighbours) if far else []
      share = gate if far else 0.0
      for s, weight in zip(near, local, strict=True):
        out[t, n] += (1.0 - share) * weight * example.v[s, kv_head(example, n)]
      for s, weight in zip(far, memory, strict=True):
        out[t, n] += share * weight * example.v[s, kv_head(example, n)]
  return out
