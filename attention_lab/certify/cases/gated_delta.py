"""The gated delta rule: the state fades before a key's old value is replaced by the new one.

Yang et al. 2025 (Gated Delta Networks, arXiv 2412.06464): S_t = α_t S_{t−1} + β_t k_t (v_t − α_t S_{t−1}ᵀ k_t)ᵀ,
out_t = S_tᵀ q_t / √H, with k of unit length, β_t = σ(x_t w + b) and, after Mamba-2 (arXiv 2405.21060),
α_t = exp(−exp(A) · softplus(x_t w' + b')).
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_zoo import key_input, logistic, state_read, unit

SPECS = ("gated_delta(chunk=4)",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Params {"decay": {"kernel": [D, K], "bias": [K], "rate": [K]}, "write": {"kernel", "bias"}}, [T, N, V]."""
  del variant
  refuse_bias(example, "gated_delta")
  x, decay, write = key_input(example), params["decay"], params["write"]

  def step(state: np.ndarray, g: int, s: int) -> np.ndarray:
    k = unit(example.k[s, g])
    softplus = float(np.logaddexp(0.0, x[s] @ decay["kernel"][:, g] + decay["bias"][g]))
    alpha = math.exp(-math.exp(float(decay["rate"][g])) * softplus)
    beta = logistic(float(x[s] @ write["kernel"][:, g] + write["bias"][g]))
    return alpha * state + beta * np.outer(k, example.v[s, g] - alpha * state.T @ k)

  return state_read(example, step)
