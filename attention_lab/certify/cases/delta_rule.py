"""The delta rule: a key's old value is taken out of the state before the new one is written.

Yang et al. 2024 (Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv 2406.06484), after
Schlag et al. 2021 (arXiv 2102.11174): S_t = S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ k_t)ᵀ, out_t = S_tᵀ q_t / √H, with k of
unit length and β_t = σ(x_t w + b).
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_zoo import key_input, logistic, state_read, unit

SPECS = ("delta_rule(chunk=4)",)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"kernel": [D, K], "bias": [K]}, [T, N, V]."""
  del variant
  refuse_bias(example, "delta_rule")
  x = key_input(example)

  def step(state: np.ndarray, g: int, s: int) -> np.ndarray:
    k = unit(example.k[s, g])
    beta = logistic(float(x[s] @ params["kernel"][:, g] + params["bias"][g]))
    return state + beta * np.outer(k, example.v[s, g] - state.T @ k)

  return state_read(example, step)
