"""Pooled attention: softmax over the means of `stride` consecutive keys and values.

Liu et al. 2018 (Generating Wikipedia by Summarizing Long Sequences, arXiv 1801.10198), §4.2.3, memory-compressed
attention, with a mean in place of the strided convolution. A cell is `stride` consecutive array slots; its mean is over
its readable keys, and a cell without any is not there.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, scale
from attention_lab.certify.oracle_shared import group_means, readable_keys, softmax_read

SPECS = ("memory_compressed(stride=2)",)
LIMITS = (("memory_compressed(stride=1)", "memory_compressed(stride=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention to the means of cells, each with the weight of one key, [T, N, V]."""
  del params
  refuse_bias(example, "memory_compressed")
  heads, queries, _ = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    g = kv_head(example, n)
    for t in range(queries):
      read = readable_keys(example, n, t)
      cells = [s // variant.stride for s in read]
      if read:
        k, v = (group_means([array[s, g] for s in read], cells) for array in (example.k, example.v))
        out[t, n] = softmax_read(example.q[t, n], k, v, scale(variant, example))
  return out
