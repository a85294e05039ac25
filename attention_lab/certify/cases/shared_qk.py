"""Shared projections: the queries are also the keys; with `values`, the values are all three.

Kitaev et al. 2020 (Reformer: The Efficient Transformer, arXiv 2001.04451), §2, shared-QK attention, here without
the normalised keys and with the own token readable: softmax(q·qᵀ / √H) v, or softmax(v·vᵀ / √V) v.
"""

import dataclasses
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, softmax_mean
from attention_lab.certify.oracle_shared import key_index, scaled_logit

SPECS = ("shared_qk", "shared_qk(values=True)")
LIMITS = ()  # its class takes every value of its fields


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax self-attention by q and v, or by v alone, [T, N, V]; raises ValueError where keys have no query."""
  del params
  queries, keys = example.readable.shape[1:]
  if variant.values:
    q, k = np.stack([example.v[key_index(example, t)] for t in range(queries)]), example.v
  elif queries == keys:
    q, k = example.q, example.q
  else:
    raise ValueError(f"the keys are the queries, and {queries} are given for {keys} keys: give all of them")
  same = dataclasses.replace(example, q=q, k=k)
  return softmax_mean(same, scaled_logit(variant, same))
