"""Block-local attention: the sequence is cut into blocks, and each is read from within only.

Liu et al. 2018 (Generating Wikipedia by Summarizing Long Sequences, arXiv 1801.10198), "local attention":
key j is read by query i where ⌊i / block⌋ = ⌊j / block⌋, by positions; the caller's mask holds as well.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("block_local(block=3)",)
LIMITS = (("block_local(block=1)", "block_local(block=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention within blocks, [T, N, V]."""
  del params
  return pattern_mean(variant, example, lambda i, j: i // variant.block == j // variant.block)
