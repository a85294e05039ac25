"""Shifted windows: a grid is cut into squares, and each is read from within only.

Liu et al. 2021 (Swin Transformer, arXiv 2103.14030), §3.2, one layer, regular (shift 0) or shifted: ⌊(row − shift) /
window⌋ and ⌊(column − shift) / window⌋ of query and key agree, so that the squares at the upper and left border are
only `shift` wide. No relative position bias. Tokens lie row by row, `columns` in a row; there are no class tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import grid_cell, pattern_mean

SPECS = ("swin(window=2, shift=1, columns=2)", "swin(window=3, shift=1, columns=4)")
LIMITS = (
  ("swin(window=1, columns=3)", "swin(window=0, columns=3)"),
  ("swin(window=3, shift=0, columns=3)", "swin(window=3, shift=-1, columns=3)"),
  ("swin(window=3, shift=2, columns=3)", "swin(window=3, shift=3, columns=3)"),
  ("swin(columns=0)", "swin(columns=-1)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention within the square, by positions, [T, N, V]."""
  del params

  def square(p: int) -> tuple[int, int]:
    row, column = grid_cell(p, variant.columns)
    return (row - variant.shift) // variant.window, (column - variant.shift) // variant.window

  return pattern_mean(variant, example, lambda i, j: square(i) == square(j))
