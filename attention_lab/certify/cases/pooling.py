"""Pooling, a control: every readable key weighs the same.

Zhang et al. 2018 (average attention network, arXiv 1805.00631), §3, eq. 1 without its feed-forward and gate: the mean
of the values read so far; not causal, the mean of all. There are no queries and no keys.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias

SPECS = ("pooling(chunk=4)",)
LIMITS = (("pooling(chunk=1)", "pooling(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """The mean of the readable values of one example, [T, N, V]."""
  del variant, params
  refuse_bias(example, "pooling")
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(queries):
      read = [s for s in range(keys) if example.readable[n, t, s]]
      for s in read:
        out[t, n] += example.v[s, kv_head(example, n)] / len(read)
  return out
