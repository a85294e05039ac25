"""Persistent memory: trained keys and values that every query reads beside the tokens, in one softmax.

Sukhbaatar et al. 2019 (Augmenting Self-attention with Persistent Memory, arXiv 1907.01470), §4, eqs. 8 and 9. The
caller's bias belongs to tokens alone. A query that may read no token reads no memory either.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, scale, softmax
from attention_lab.certify.oracle_shared import readable_keys, scaled_logit, scores

SPECS = ("persistent(memories=2)",)
LIMITS = (("persistent(memories=1)", "persistent(memories=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"keys": [N, memories, H], "values": [N, memories, V]}}, [T, N, V]."""
  heads, queries, _ = example.readable.shape
  logit, memory = scaled_logit(variant, example), params["per_head"]
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(queries):
      read = readable_keys(example, n, t)
      if not read:
        continue
      logits = [logit(n, t, s) for s in read]
      logits += scores(example.q[t, n], list(memory["keys"][n]), scale(variant, example))
      values = [example.v[s, kv_head(example, n)] for s in read] + list(memory["values"][n])
      for weight, value in zip(softmax(logits), values, strict=True):
        out[t, n] += weight * value
  return out
