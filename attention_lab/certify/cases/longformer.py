"""Longformer attention: a sliding window, and a few global positions that read all and are read by all.

Beltagy et al. 2020 (Longformer, arXiv 2004.05150), §3.1, "Sliding Window" and "Global Attention": |i − j| < window,
or i or j among the first `global_tokens` positions; without the paper's own projections for global tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("longformer(window=2, global_tokens=1)",)
LIMITS = (
  ("longformer(window=1)", "longformer(window=0)"),
  ("longformer(global_tokens=0)", "longformer(global_tokens=-1)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over window and global positions, [T, N, V]."""
  del params

  def allows(i: int, j: int) -> bool:
    return abs(i - j) < variant.window or min(i, j) < variant.global_tokens

  return pattern_mean(variant, example, allows)
