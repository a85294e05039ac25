"""Differential attention: the difference of two softmax maps, which cancels what they have in common.

Ye et al. 2024 (Differential Transformer, arXiv 2410.05258), §2.1: (softmax(q1·k1 / √d) − λ softmax(q2·k2 / √d)) v with
the halves q = [q1, q2] and k = [k1, k2] of width d = H / 2, λ = exp(λ_q1·λ_k1) − exp(λ_q2·λ_k2) + λ_init; each head's
output is normalised by its root mean square and multiplied by 1 − λ_init.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, softmax_mean

SPECS = ("differential",)
LIMITS = ()  # its class takes every value of its fields


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"query1", "key1", "query2", "key2"}, each [H / 2], shared by the heads; [T, N, V]."""
  refuse_bias(example, "differential")
  half = example.q.shape[2] // 2
  factor = 1.0 / math.sqrt(half) if variant.scale is None else variant.scale

  def logit(n: int, t: int, s: int, first: int) -> float:
    q, k = example.q[t, n], example.k[s, kv_head(example, n)]
    return factor * sum(float(q[h] * k[h]) for h in range(first, first + half))

  def product(query: str, key: str) -> float:
    return sum(float(params[query][h] * params[key][h]) for h in range(half))

  weight = math.exp(product("query1", "key1")) - math.exp(product("query2", "key2")) + variant.initial
  signal = softmax_mean(example, lambda n, t, s: logit(n, t, s, 0))
  noise = softmax_mean(example, lambda n, t, s: logit(n, t, s, half))
  out = signal - weight * noise
  for t, n in np.ndindex(*out.shape[:2]):
    square = sum(float(u * u) for u in out[t, n]) / out.shape[2]
    out[t, n] *= (1.0 - variant.initial) / math.sqrt(square + 1e-5)
  return out
