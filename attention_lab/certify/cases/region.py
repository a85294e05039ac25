"""Region attention: the own region of a grid token by token, every other one as its mean.

Chen et al. 2021 (RegionViT, arXiv 2106.02689), §3, after the regions of Anderson et al. 2018 (arXiv 1707.07998). The
grid is cut into squares of side `size`, (⌊row / size⌋, ⌊column / size⌋); one softmax over the valid tokens of the
query's own region and over one key for each other region, the mean of its valid keys, with the mean of their values. A
region without a valid token is absent. Key s is valid if the row may read it; a padded query's row is empty and gives
zeros. Tokens lie row by row, `columns` in a row; there are no class tokens.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import grid_cell, refuse_positions, summary_mean

SPECS = ("region(size=2, columns=3)",)
LIMITS = (("region(size=1, columns=3)", "region(size=0, columns=3)"), ("region(columns=0)", "region(columns=-1)"))


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention to the own region's tokens and the other regions' means, [T, N, V]."""
  del params
  refuse_bias(example, "region")
  refuse_positions(example, "region")

  def region(p: int) -> tuple[int, int]:
    row, column = grid_cell(p, variant.columns)
    return row // variant.size, column // variant.size

  return summary_mean(
    variant,
    example,
    group=region,
    exact=lambda i, j: region(i) == region(j),
    pooled=lambda i, other: region(i) != other,
  )
