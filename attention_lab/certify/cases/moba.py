"""Mixture of block attention: the own block, and the earlier blocks whose mean key the query likes best.

Lu et al. 2025 (MoBA, arXiv 2502.13189), §2.2: of the blocks before the query's own, those with the largest q_i · (mean
of the block's valid keys), `top_k` with the own block counted; of several that tie with the last one all are read. One
softmax over the readable keys of the blocks read. A block without a valid key takes no part. Every head chooses for
itself.

Valid keys are those that the row may read: an earlier block lies wholly in the past of the row, so that the causal mask
hides nothing of it. A padded query's row is empty and gives zeros.
"""

import dataclasses
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, softmax_mean
from attention_lab.certify.oracle_shared import groups, inner, mean_row, refuse_positions, scaled_logit

SPECS = ("moba(block=2, top_k=2)",)
LIMITS = (("moba(block=1)", "moba(block=0)"), ("moba(top_k=1)", "moba(top_k=0)"))


def chosen(variant: Any, example: Example, n: int, t: int) -> list[int]:
  """The keys of the blocks that query t of head n reads."""
  own_block, blocks = int(example.i[t]) // variant.block, groups(example, n, t, lambda j: j // variant.block)
  liking = {
    block: inner(example.q[t, n], mean_row(example.k, kv_head(example, n), members))
    for block, members in blocks.items()
    if block < own_block
  }
  best = sorted(liking.values(), reverse=True)[: variant.top_k - 1]
  read = [block for block in blocks if block == own_block or (best and block < own_block and liking[block] >= best[-1])]
  return [s for block in read for s in blocks[block]]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over the chosen blocks, [T, N, V]. Raises ValueError where a query reads a later key."""
  del params
  refuse_bias(example, "moba")
  refuse_positions(example, "moba")
  read = np.zeros_like(example.readable)
  for n, t in np.ndindex(*read.shape[:2]):
    if any(example.readable[n, t, s] and example.j[s] > example.i[t] for s in range(read.shape[2])):
      raise ValueError(f"query {t} may read a later key, moba looks back only: give causal=True")
    read[n, t, chosen(variant, example, n, t)] = True
  narrowed = dataclasses.replace(example, readable=read)
  return softmax_mean(narrowed, scaled_logit(variant, narrowed))
