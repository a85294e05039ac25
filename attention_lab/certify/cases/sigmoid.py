"""Sigmoid attention: every key weighs by itself, and the weights are not normalised.

Ramapuram et al. 2025 (Theory, Analysis, and Best Practices for Sigmoid Self-Attention, arXiv 2409.04431):
out_i = Σ_j σ(q_i·k_j / √H + b) v_j with b = −log(longest sequence).
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, row_sum
from attention_lab.certify.oracle_shared import logistic, scaled_logit

SPECS = ("sigmoid",)
LIMITS = ()  # its class takes every value of its fields


def fixed(variant: Any, dims: Any) -> dict:
  """The bias −log n at which the weights of n keys with logits 0 sum to about 1; n is the longest sequence."""
  del variant
  return {"bias": -math.log(dims.max_len)}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"bias": []}}; the caller's bias is added inside the sigmoid; [T, N, V]."""
  shift = float(params["fixed"]["bias"])
  return row_sum(example, scaled_logit(variant, example), lambda logits: [logistic(x + shift) for x in logits])
