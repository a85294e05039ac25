"""Top-k attention: softmax over the k largest logits of a row.

Gupta et al. 2021 (Memory-efficient Transformers via Top-k Attention, arXiv 2106.06899). Of several keys that tie with
the k-th largest all are kept.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, row_sum
from attention_lab.certify.oracle_shared import scaled_logit, shares

SPECS = ("top_k(k=2)",)
LIMITS = (("top_k(k=1)", "top_k(k=0)"),)


def weights(logits: Sequence[float], k: int) -> list[float]:
  """Softmax over the logits that are at least the k-th largest, 0 elsewhere; all of them where there are fewer."""
  descending = sorted(logits, reverse=True)
  least = descending[min(k, len(logits)) - 1]
  return shares([math.exp(x - descending[0]) if x >= least else 0.0 for x in logits])


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention to the k readable keys of the largest logits, bias included, [T, N, V]."""
  del params
  return row_sum(example, scaled_logit(variant, example), lambda logits: weights(logits, variant.k))
