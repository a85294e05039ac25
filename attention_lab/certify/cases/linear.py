"""Linear attention with the feature map elu + 1.

Katharopoulos et al. 2020 (arXiv 2006.16236), §3.2, eqs. 4 and 5, and §3.3, eqs. 8 and 9 (causal), with eq. 7,
φ(x) = elu(x) + 1, unscaled: out_i = Σ_j φ(q_i)·φ(k_j) v_j / Σ_j φ(q_i)·φ(k_j). The chunk length of an
implementation changes nothing here.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kernel_mean, refuse_bias

SPECS = ("linear(chunk=4)",)
LIMITS = (("linear(chunk=1)", "linear(chunk=0)"),)


def features(x: np.ndarray) -> list[float]:
  """φ(x) = elu(x) + 1, that is x + 1 where x > 0, and exp(x) elsewhere; [H] -> [H]."""
  return [float(u) + 1.0 if u > 0 else math.exp(u) for u in x]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Linear attention of one example, pair by pair, [T, N, V]."""
  del variant, params
  refuse_bias(example, "linear")
  return kernel_mean(example, features)
