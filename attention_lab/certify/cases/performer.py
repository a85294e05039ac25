"""Performer: FAVOR+, positive random features of the softmax kernel.

Choromanski et al. 2021 (arXiv 2009.14794), §2.3, Lemma 1: exp(q·k) = E_w[exp(w·q − |q|²/2) exp(w·k − |k|²/2)] for
w ~ N(0, I), with q and k divided by H^(1/4) (§2.2), so that the kernel is exp(q·k / √H). Factors shared by all
features cancel.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kernel_mean, refuse_bias

SPECS = ("performer(features=8, chunk=4)",)


def features(x: np.ndarray, directions: np.ndarray) -> list[float]:
  """φ_m(x) = exp(w_m·x' − |x'|²/2) with x' = x / H^(1/4); [H] and [features, H] -> [features]."""
  shrunk = x / len(x) ** 0.25
  half_square = sum(float(u * u) for u in shrunk) / 2
  return [math.exp(float(np.dot(w, shrunk)) - half_square) for w in directions]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"directions": [features, H]}}, shared over heads, [T, N, V]."""
  del variant
  refuse_bias(example, "performer")
  return kernel_mean(example, lambda x: features(x, params["fixed"]["directions"]))
