"""BigBird: blocks near by, a few global blocks, and a few random ones.

Zaheer et al. 2020 (Big Bird: Transformers for Longer Sequences, arXiv 2007.14062), §2 and its blocked form: with block
indices I = ⌊i / block⌋ and J = ⌊j / block⌋, a pair is read where |I − J| ≤ ⌊window / 2⌋, or I or J is among the first
`global_blocks`, or J is one of the random blocks drawn for I. Positions beyond the table of random blocks take its
last row.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example
from attention_lab.certify.oracle_shared import pattern_mean

SPECS = ("bigbird(block=2, window=1, global_blocks=1, random=1)",)
LIMITS = (
  ("bigbird(window=1)", "bigbird(window=-1)"),
  ("bigbird(window=1)", "bigbird(window=2)"),
  ("bigbird(block=1)", "bigbird(block=0)"),
  ("bigbird(global_blocks=0)", "bigbird(global_blocks=-1)"),
  ("bigbird(random=0)", "bigbird(random=-1)"),
)


def fixed_law(variant: Any, leaves: dict, dims: Any) -> str:
  """For each block of queries, `random` blocks of the sequence, each as likely as the others."""
  drawn, count = np.asarray(leaves["blocks"]), -(-dims.max_len // variant.block)
  if drawn.shape[1:] != (count, variant.random) or not np.issubdtype(drawn.dtype, np.integer):
    return f"blocks is {drawn.dtype}{drawn.shape[1:]}, not integers ({count}, {variant.random})"
  if drawn.min() < 0 or drawn.max() >= count:
    return f"blocks holds {drawn.min()} … {drawn.max()}, and the sequence has the blocks 0 … {count - 1}"
  shares = np.stack([np.mean(drawn == block, axis=0) for block in range(count)])
  off, bound = float(np.max(np.abs(shares - 1 / count))), 6 * math.sqrt(1 / count / len(drawn))
  return "" if off <= bound else f"some block is drawn {off:.2g} more or less often than one in {count} times"


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention with params {"fixed": {"blocks": [⌈max_len / block⌉, random]}}, [T, N, V]."""
  table = params["fixed"]["blocks"]

  def allows(i: int, j: int) -> bool:
    i_block, j_block = i // variant.block, j // variant.block
    near = abs(i_block - j_block) <= variant.window // 2
    drawn = [int(block) for block in table[min(i_block, len(table) - 1)]]
    return near or min(i_block, j_block) < variant.global_blocks or j_block in drawn

  return pattern_mean(variant, example, allows)
