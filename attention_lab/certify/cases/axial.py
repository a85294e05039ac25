"""Axial attention: the tokens of the own row and of the own column of a grid.

Ho et al. 2019 (Axial Attention in Multidimensional Transformers, arXiv 1912.12180), §3: attention along one axis at a
time. Here both axes are read in one softmax, where the paper has a layer for each. Tokens lie row by row, `columns` in
a row; there are no class tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import grid_cell, pattern_mean

SPECS = ("axial(columns=3)",)
LIMITS = (("axial(columns=0)", "axial(columns=-1)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over row and column, by positions, [T, N, V]."""
  del params

  def allows(i: int, j: int) -> bool:
    (row, column), (other_row, other_column) = grid_cell(i, variant.columns), grid_cell(j, variant.columns)
    return row == other_row or column == other_column

  return pattern_mean(variant, example, allows)
