"""Gated linear attention: a forget gate for each key channel, out of the layer's input.

Yang et al. 2024 (Gated Linear Attention Transformers, arXiv 2312.06635): S_t = diag(a_t) S_{t−1} + k_t v_tᵀ,
out_t = S_tᵀ q_t / √H, a_t = σ(x_t W + b)^(1 / temperature); here one matrix W, where the paper has two of low rank.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_zoo import key_input, logistic, state_read

SPECS = ("gated_linear(chunk=4, temperature=2.0)",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"kernel": [D, K, H], "bias": [K, H]}, [T, N, V]."""
  refuse_bias(example, "gated_linear")
  x = key_input(example)

  def step(state: np.ndarray, g: int, s: int) -> np.ndarray:
    out = np.zeros_like(state)
    for h in range(len(state)):
      gate = logistic(float(x[s] @ params["kernel"][:, g, h] + params["bias"][g, h])) ** (1.0 / variant.temperature)
      out[h] = gate * state[h] + example.k[s, g, h] * example.v[s, g]
    return out

  return state_read(example, step)
