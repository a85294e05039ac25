"""Strided attention: the nearest keys, and every stride-th one.

Child et al. 2019 (Generating Long Sequences with Sparse Transformers, arXiv 1904.10509), §4.2, the strided pattern,
both of its parts in one head: |i − j| < stride, or stride divides i − j. The paper's is causal; without a causal mask
it holds to both sides.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("sparse_strided(stride=3)",)
LIMITS = (("sparse_strided(stride=1)", "sparse_strided(stride=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the strided pattern, by positions, [T, N, V]."""
  del params
  return pattern_mean(variant, example, lambda i, j: abs(i - j) < variant.stride or (i - j) % variant.stride == 0)
