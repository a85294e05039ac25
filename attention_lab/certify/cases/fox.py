"""Forgetting attention: softmax attention that is damped by a forget gate at each token in between.

Lin et al. 2025 (Forgetting Transformer: Softmax Attention with a Forget Gate, arXiv 2503.02130), §3: f_t = σ(w·x_t
+ b), softmax(q_i·k_j / √H + Σ_{j < l ≤ i} log f_l) v. The tokens l are counted in array order; one that is hidden
is skipped. Here each key head has a gate, where the paper has one for each query head.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, softmax_mean
from attention_lab.certify.oracle_shared import key_input, later, refuse_future, scaled_logit

SPECS = ("fox",)
LIMITS = ()  # its class takes every value of its fields


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"kernel": [D, K], "bias": [K]}, [T, N, V]; raises ValueError where the future is read."""
  refuse_future(example, "fox")
  x, scaled = key_input(example), scaled_logit(variant, example)

  def log_gate(n: int, l: int) -> float:
    g = kv_head(example, n)
    return -float(np.logaddexp(0.0, -(x[l] @ params["kernel"][:, g] + params["bias"][g])))

  def logit(n: int, t: int, s: int) -> float:
    return scaled(n, t, s) + sum(log_gate(n, l) for l in later(example, n, t, s))

  return softmax_mean(example, logit)
