"""Fixed attention: the own block, and the last few positions of every block.

Child et al. 2019 (Generating Long Sequences with Sparse Transformers, arXiv 1904.10509), §4.3, the fixed pattern, both
of its parts in one head: ⌊i / stride⌋ = ⌊j / stride⌋, or j mod stride ≥ stride − expressivity. The paper's is causal;
without a causal mask it holds to both sides.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("sparse_fixed(stride=3, expressivity=1)",)
LIMITS = (
  ("sparse_fixed(stride=1, expressivity=1)", "sparse_fixed(stride=0, expressivity=1)"),
  ("sparse_fixed(stride=3, expressivity=1)", "sparse_fixed(stride=3, expressivity=0)"),
  ("sparse_fixed(stride=3, expressivity=3)", "sparse_fixed(stride=3, expressivity=4)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the fixed pattern, by positions, [T, N, V]."""
  del params

  def allows(i: int, j: int) -> bool:
    return i // variant.stride == j // variant.stride or j % variant.stride >= variant.stride - variant.expressivity

  return pattern_mean(variant, example, allows)
