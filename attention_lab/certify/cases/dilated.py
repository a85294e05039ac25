"""Dilated sliding-window attention: a window with gaps.

Beltagy et al. 2020 (Longformer, arXiv 2004.05150), §3.1, "Dilated Sliding Window": key j is read by query i where
|i − j| < window · dilation and dilation divides i − j: `window` keys to each side, the own position counted.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("dilated(window=2, dilation=2)",)
LIMITS = (("dilated(window=1)", "dilated(window=0)"), ("dilated(dilation=1)", "dilated(dilation=0)"))


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the dilated window, by positions, [T, N, V]."""
  del params

  def allows(i: int, j: int) -> bool:
    return abs(i - j) < variant.window * variant.dilation and (i - j) % variant.dilation == 0

  return pattern_mean(variant, example, allows)
