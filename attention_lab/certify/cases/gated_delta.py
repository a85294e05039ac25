"""The gated delta rule: the state fades before a key's old value is replaced by the new one.

Yang et al. 2025 (Gated Delta Networks, arXiv 2412.06464): S_t = α_t S_{t−1} + β_t k_t (v_t − α_t S_{t−1}ᵀ k_t)ᵀ,
out_t = S_tᵀ q_t / √H, with k of unit length, β_t = σ(x_t w + b) and, after Mamba-2 (arXiv 2405.21060),
α_t = exp(−exp(A) · softplus(x_t w' + b')). Without a causal mask a query reads later keys too, from the same
recurrence in reversed order: it has faded by the query's own α, and has not read the query's own key.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import delta_write, fading, state_read

SPECS = ("gated_delta(chunk=4)",)
LIMITS = (("gated_delta(chunk=1)", "gated_delta(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Params {"decay": {"kernel": [D, K], "bias": [K], "rate": [K]}, "write": {"kernel", "bias"}}, [T, N, V]."""
  del variant
  refuse_bias(example, "gated_delta")
  return state_read(example, fading(params["decay"], example), delta_write(params["write"], example))
