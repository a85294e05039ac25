"""Hierarchical attention: the farther a key, the coarser the mean that stands for it in the logit.

Zhu & Soricut 2021 (H-Transformer-1D, arXiv 2107.11906), its hierarchy of levels, without coarsening the queries, which
would leak later ones. The level of query index t and key index s is the smallest l ≥ 0 with |⌊t / (block·2ˡ)⌋ −
⌊s / (block·2ˡ)⌋| ≤ 1; the logit of the pair is q_t times the mean of the valid keys of the cell of 2ˡ indices that s
lies in, and v_s is its own. A cell's mean is over all of its valid keys, those too that are themselves read at a finer
level (only an odd `block` has such).

Valid keys are those that the row may read: without a causal mask a row may read all valid keys; under it a cell of
level 1 or more ends before the query, its keys being two blocks of the next finer level behind, so that the mask hides
nothing of it. A padded query's row is empty and gives zeros.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, scale, softmax_mean
from attention_lab.certify.oracle_shared import groups, inner, mean_row, refuse_positions

SPECS = ("hierarchical(block=1)", "hierarchical(block=2)")
LIMITS = (("hierarchical(block=1)", "hierarchical(block=0)"),)


def level(t: int, s: int, block: int) -> int:
  """How coarsely array index s is read from array index t."""
  coarse = 0
  while abs(t // (block * 2**coarse) - s // (block * 2**coarse)) > 1:
    coarse += 1
  return coarse


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention to single values by logits of cells, [T, N, V]."""
  del params
  refuse_bias(example, "hierarchical")
  refuse_positions(example, "hierarchical")
  factor = scale(variant, example)

  def logit(n: int, t: int, s: int) -> float:
    size = 2 ** level(int(example.i[t]), s, variant.block)
    cell = groups(example, n, t, lambda j: j // size)[s // size]
    return factor * inner(example.q[t, n], mean_row(example.k, kv_head(example, n), cell))

  return softmax_mean(example, logit)
