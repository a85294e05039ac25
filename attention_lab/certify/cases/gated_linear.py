"""Gated linear attention: a forget gate for each key channel, out of the layer's input.

Yang et al. 2024 (Gated Linear Attention Transformers, arXiv 2312.06635): S_t = diag(a_t) S_{t−1} + k_t v_tᵀ,
out_t = S_tᵀ q_t / √H, a_t = σ(x_t W + b)^(1 / temperature); here one matrix W, where the paper has two of low rank.
Without a causal mask a query reads later keys too, from the same recurrence in reversed order: it has faded by the
query's own gate, and has not read the query's own key.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import key_input, logistic, outer_write, state_read

SPECS = ("gated_linear(chunk=4, temperature=2.0)",)
LIMITS = (
  ("gated_linear(temperature=0.001)", "gated_linear(temperature=0.0)"),
  ("gated_linear(chunk=1)", "gated_linear(chunk=0)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"kernel": [D, K, H], "bias": [K, H]}, [T, N, V]."""
  refuse_bias(example, "gated_linear")
  x = key_input(example)

  def decay(g: int, s: int) -> np.ndarray:
    logits = x[s] @ params["kernel"][:, g] + params["bias"][g]
    return np.array([logistic(float(logit)) ** (1.0 / variant.temperature) for logit in logits])

  return state_read(example, decay, outer_write(example))
