"""Linformer: keys and values projected along the sequence to `rank` slots.

Wang et al. 2020 (arXiv 2006.04768), §4, eq. 7: softmax(q (E K)ᵀ / √H) (F V), with E and F shared over heads
("headwise sharing"). Row s of a projection belongs to the key at index s. Keys that may not be read are dropped before
projecting.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, softmax

SPECS = ("linformer(rank=3)",)
LIMITS = (("linformer(rank=1)", "linformer(rank=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"keys": [max_len, rank], "values": [max_len, rank]}, [T, N, V]."""
  refuse_bias(example, "linformer")
  heads, queries, keys = example.readable.shape
  width = example.q.shape[2]
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    g = kv_head(example, n)
    for t in range(queries):
      read = [s for s in range(keys) if example.readable[n, t, s]]
      if not read:
        continue
      slot_keys = [sum(params["keys"][s, r] * example.k[s, g] for s in read) for r in range(variant.rank)]
      slot_values = [sum(params["values"][s, r] * example.v[s, g] for s in read) for r in range(variant.rank)]
      logits = [sum(float(example.q[t, n, h] * key[h]) for h in range(width)) / math.sqrt(width) for key in slot_keys]
      for weight, slot_value in zip(softmax(logits), slot_values, strict=True):
        out[t, n] += weight * slot_value
  return out
