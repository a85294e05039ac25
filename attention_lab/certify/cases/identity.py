"""Identity, a control: every query returns the value at its own index; nothing is mixed.

Yu et al. 2022 (IdentityFormer, arXiv 2210.13452), §2: the token mixer is the identity map.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias

SPECS = ("identity",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """The value at the query's own index where the query may read it, else 0, [T, N, V]."""
  del variant, params
  refuse_bias(example, "identity")
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(min(queries, keys)):
      if example.readable[n, t, t]:
        out[t, n] = example.v[t, kv_head(example, n)]
  return out
