"""Multi-head latent attention: keys and values of all heads out of one small latent per token.

DeepSeek-AI 2024 (DeepSeek-V2, arXiv 2405.04434), §2.1.2, eqs. 9-13, and §2.1.3, eqs. 14-19: c_j = W_D y_j, keys
[W_K c_j; RoPE(W_R y_j)], values W_V c_j, queries [q; RoPE(q_R)] out of x_i or of its latent, logits / √(H + R). The
latents are normalised by their root mean square, as in the released model. RoPE (Su et al. 2021, arXiv 2104.09864)
turns the pair of channels (c, c + R/2) by position · base^(−2c/R).
"""

import dataclasses
import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, softmax_mean
from attention_lab.certify.oracle_shared import key_input

SPECS = ("mla(kv_rank=3, rope=4)", "mla(kv_rank=2, query_rank=3, rope=4, base=100.0)")
LIMITS = (
  ("mla(kv_rank=1)", "mla(kv_rank=0)"),
  ("mla(query_rank=0)", "mla(query_rank=-1)"),
  ("mla(rope=2)", "mla(rope=0)"),
  ("mla(rope=2)", "mla(rope=3)"),
  ("mla(base=0.001)", "mla(base=0.0)"),
)


def normalized(u: np.ndarray) -> np.ndarray:
  """A vector over its root mean square, √(mean u² + 1e-6)."""
  return u / math.sqrt(sum(float(a * a) for a in u) / len(u) + 1e-6)


def turned(x: np.ndarray, position: int, base: float) -> np.ndarray:
  """The rotary embedding of [R] at a position."""
  half, out = len(x) // 2, np.zeros(len(x))
  for c in range(half):
    angle = position * base ** (-2.0 * c / len(x))
    out[c] = x[c] * math.cos(angle) - x[c + half] * math.sin(angle)
    out[c + half] = x[c + half] * math.cos(angle) + x[c] * math.sin(angle)
  return out


def expanded(variant: Any, params: dict, example: Example) -> Example:
  """The example with q and k `· N H+R` and v `S N V`, as if the layer had projected them."""
  per_head, y = params["per_head"], key_input(example)
  heads, _, width = per_head["keys"].shape
  q = np.zeros((len(example.i), heads, width + variant.rope))
  k, v = np.zeros((len(y), heads, width + variant.rope)), np.zeros((len(y), heads, per_head["values"].shape[2]))
  for t in range(len(q)):
    u = normalized(example.x[t] @ params["query"]) if variant.query_rank else example.x[t]
    for n in range(heads):
      both = u @ per_head["query"][n]
      q[t, n, :width] = both[:width]
      q[t, n, width:] = turned(both[width:], int(example.i[t]), variant.base)
  for s in range(len(y)):
    latent = normalized(y[s] @ params["down"])
    shared = turned(y[s] @ params["rope"], int(example.j[s]), variant.base)
    for n in range(heads):
      k[s, n, :width], k[s, n, width:] = latent @ per_head["keys"][n], shared
      v[s, n] = latent @ per_head["values"][n]
  return dataclasses.replace(example, q=q, k=k, v=v)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention of x to y, [T, N, V]; the only arrays of the layer are x and y.

  params {"down": [D, kv_rank], "rope": [D, R], "per_head": {"query": [N, D, H + R], "keys": [N, kv_rank, H], "values":
  [N, kv_rank, V]}}; with a query_rank also {"query": [D, query_rank]}, and per_head/query is [N, query_rank, H + R].
  """
  whole = expanded(variant, params, example)
  factor = 1.0 / math.sqrt(whole.q.shape[2])
  return softmax_mean(whole, lambda n, t, s: factor * dot(whole, n, t, s) + bias(whole, n, t, s))
