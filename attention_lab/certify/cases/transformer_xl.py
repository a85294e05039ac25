"""Transformer-XL's relative positions: sinusoids of the distance, and two learned vectors in the queries' place.

Dai et al. 2019 (Transformer-XL, arXiv 1901.02860), §3.3: A_ij = (q_i + u)·k_j + (q_i + w)·W r_{i−j}, scaled by 1 /
√H, with u, w and W of each head. r_d is the sinusoid of Vaswani et al. 2017 with all sines first, as in the
released code; so is `memory`, its same_length: a query reads positions nearer than that many only.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, kv_head, scale, softmax_mean
from attention_lab.certify.oracle_shared import restricted

SPECS = ("transformer_xl", "transformer_xl(memory=3)")
LIMITS = (("transformer_xl(memory=0)", "transformer_xl(memory=-1)"),)


def sinusoid(distance: int, width: int) -> np.ndarray:
  """r_d: sin(d f_c) for c = 0…D/2 − 1, then cos(d f_c), with f_c = 10000^(−2c/D); [D]."""
  angles = [distance * 10000.0 ** (-2.0 * c / width) for c in range(width // 2)]
  return np.array([math.sin(a) for a in angles] + [math.cos(a) for a in angles])


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"content": [N, H], "position": [N, H], "kernel": [N, D, H]}}, [T, N, V]."""
  per_head = params["per_head"]

  def near(_: int, t: int, s: int) -> bool:
    return variant.memory == 0 or abs(int(example.i[t]) - int(example.j[s])) < variant.memory

  def logit(n: int, t: int, s: int) -> float:
    kernel, key, total = per_head["kernel"][n], example.k[s, kv_head(example, n)], 0.0
    r = sinusoid(int(example.i[t]) - int(example.j[s]), len(kernel))
    for h in range(len(key)):
      query, relative = float(example.q[t, n, h]), float(r @ kernel[:, h])
      total += (query + per_head["content"][n, h]) * key[h] + (query + per_head["position"][n, h]) * relative
    return scale(variant, example) * total + bias(example, n, t, s)

  return softmax_mean(restricted(example, near), logit)
