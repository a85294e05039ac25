"""Space-time attention: the tokens of the own frame, and those at the own place in all frames.

Bertasius et al. 2021 (Is Space-Time Attention All You Need for Video Understanding?, arXiv 2102.05095), §3, divided
attention; here space and time are read in one softmax, where the paper has two in a row. A frame has `tokens` tokens,
frames follow one another; there are no class tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import grid_cell, pattern_mean

SPECS = ("divided_space_time(tokens=3)",)
LIMITS = (("divided_space_time(tokens=0)", "divided_space_time(tokens=-1)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the own frame and the own place, by positions, [T, N, V]."""
  del params

  def allows(i: int, j: int) -> bool:
    return any(a == b for a, b in zip(grid_cell(i, variant.tokens), grid_cell(j, variant.tokens), strict=True))

  return pattern_mean(variant, example, allows)
