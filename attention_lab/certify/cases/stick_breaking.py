"""Stick-breaking attention: each key takes its share of what the keys after it have left.

Tan et al. 2025 (Scaling Stick-breaking Attention, arXiv 2410.17980), §2: A_ij = σ(z_ij) Π_{j < l < i} (1 − σ(z_il))
with z = q·k / √H, over the keys before the query; what is left of the stick at the end is nobody's. The keys are
taken in array order, and one that is hidden takes nothing.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, row_sum
from attention_lab.certify.oracle_shared import logistic, refuse_future, restricted, scaled_logit

SPECS = ("stick_breaking", "stick_breaking(attend_current=True)")
LIMITS = ()  # its class takes every value of its fields


def weights(logits: Sequence[float]) -> list[float]:
  """Shares of a stick of length 1, broken from the last logit to the first."""
  rest, shares = 1.0, []
  for logit in reversed(logits):
    shares.append(rest * logistic(logit))
    rest *= logistic(-logit)
  return shares[::-1]


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention to the keys before the query, with `attend_current` also to that at its position; [T, N, V].

  Raises ValueError where a query reads a later key.
  """
  del params
  refuse_future(example, "stick_breaking")
  read = restricted(example, lambda _, t, s: variant.attend_current or example.j[s] != example.i[t])
  return row_sum(read, scaled_logit(variant, example), weights)
