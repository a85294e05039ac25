"""The delta rule: a key's old value is taken out of the state before the new one is written.

Yang et al. 2024 (Parallelizing Linear Transformers with the Delta Rule over Sequence Length, arXiv 2406.06484), after
Schlag et al. 2021 (arXiv 2102.11174): S_t = S_{t−1} + β_t k_t (v_t − S_{t−1}ᵀ k_t)ᵀ, out_t = S_tᵀ q_t / √H, with k of
unit length and β_t = σ(x_t w + b). Without a causal mask a query reads later keys too, from the same recurrence in
reversed order, up to the key after its own.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import delta_write, state_read

SPECS = ("delta_rule(chunk=4)",)
LIMITS = (("delta_rule(chunk=1)", "delta_rule(chunk=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"kernel": [D, K], "bias": [K]}, [T, N, V]."""
  del variant
  refuse_bias(example, "delta_rule")
  return state_read(example, lambda *_: 1.0, delta_write(params, example))
