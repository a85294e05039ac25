"""State space duality: a state that fades and is written to at a rate out of the layer's input, the core of Mamba-2.

Dao & Gu 2024 (Transformers are SSMs, arXiv 2405.21060), §5 and §7: Δ_t = softplus(x_t W + b),
S_t = exp(−exp(A) Δ_t) S_{t−1} + Δ_t k_t v_tᵀ, out_t = S_tᵀ q_t / √H, with one A, W and b for each key head. The skip
of the input (D) is left to the block. Without a causal mask a query reads the later keys too, from a state in the
reversed order that has faded by the query's own decay and has not read its own key.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import affine, fading, softplus, state_read

SPECS = ("ssd(chunk=4)",)
LIMITS = (("ssd(chunk=1)", "ssd(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Params {"kernel": [D, K], "bias": [K], "rate": [K]}, where rate is A; [T, N, V]."""
  del variant
  refuse_bias(example, "ssd")

  def write(state: np.ndarray, g: int, s: int) -> np.ndarray:
    return state + softplus(affine(params, example, g, s)) * np.outer(example.k[s, g], example.v[s, g])

  return state_read(example, fading(params, example), write)
