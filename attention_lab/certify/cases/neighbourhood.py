"""Neighbourhood attention: a square window around the query on a grid.

Ramachandran et al. 2019 (Stand-Alone Self-Attention in Vision Models, arXiv 1906.05909), §3, with a window of odd side:
|Δrow| ≤ ⌊window / 2⌋ and |Δcolumn| ≤ ⌊window / 2⌋. At a border the window is cut off; it is not moved inwards as in
Hassani et al. 2022 (NAT, arXiv 2204.07143). No relative position in the logits. Tokens lie row by row, `columns` in a
row; there are no class tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import grid_cell, pattern_mean

SPECS = ("neighbourhood(window=3, columns=3)",)
LIMITS = (
  ("neighbourhood(window=1, columns=3)", "neighbourhood(window=-1, columns=3)"),
  ("neighbourhood(window=1, columns=3)", "neighbourhood(window=2, columns=3)"),
  ("neighbourhood(columns=0)", "neighbourhood(columns=-1)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the square window, by positions, [T, N, V]."""
  del params
  reach = variant.window // 2

  def allows(i: int, j: int) -> bool:
    (row, column), (other_row, other_column) = grid_cell(i, variant.columns), grid_cell(j, variant.columns)
    return abs(row - other_row) <= reach and abs(column - other_column) <= reach

  return pattern_mean(variant, example, allows)
