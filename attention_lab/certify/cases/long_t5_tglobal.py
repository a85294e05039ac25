"""Transient global attention: near keys one by one, and every block of keys as its mean.

Guo et al. 2022 (LongT5, arXiv 2112.07916), §3.1, "Transient Global Attention": one softmax over the keys with |i − j| <
window and over one summary for each block of `block` tokens, its own block's included: the mean of the block's valid
keys, with the mean of their values (the paper sums the layer's inputs and normalises them before projecting). A block
without a valid key has no summary. Key s is valid if the row may read it; a padded query's row is empty and gives
zeros.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import refuse_positions, summary_mean

SPECS = ("long_t5_tglobal(window=2, block=3)",)
LIMITS = (
  ("long_t5_tglobal(window=1)", "long_t5_tglobal(window=0)"),
  ("long_t5_tglobal(block=1)", "long_t5_tglobal(block=0)"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention to near keys and all blocks' means, [T, N, V]."""
  del params
  refuse_bias(example, "long_t5_tglobal")
  refuse_positions(example, "long_t5_tglobal")
  return summary_mean(
    variant,
    example,
    group=lambda j: j // variant.block,
    exact=lambda i, j: abs(i - j) < variant.window,
    pooled=lambda *_: True,
  )
