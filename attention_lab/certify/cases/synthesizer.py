"""Synthesizer: attention weights without comparing tokens, out of the query's input alone or out of nothing.

Tay et al. 2021 (Synthesizer: Rethinking Self-Attention in Transformer Models, arXiv 2005.00743), §3.1 dense: a
two-layer network of x_i gives a logit for every position, W2 relu(W1 x_i + b1) + b2; §3.2 random: a trained matrix of
logits; §3.3 factorized random: that matrix as rows · columnsᵀ. Not scaled. Rows and columns are positions. A position
beyond a table has no logit: it gives NaN.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, softmax_mean

SPECS = (
  "synthesizer(kind='dense', hidden=3)",
  "synthesizer(kind='random')",
  "synthesizer(kind='factorized', rank=2)",
)
LIMITS = (
  ("synthesizer(kind='dense', hidden=1)", "synthesizer(kind='dense', hidden=0)"),
  ("synthesizer(kind='factorized', rank=1)", "synthesizer(kind='factorized', rank=0)"),
  ("synthesizer(kind='random', hidden=32)", "synthesizer(kind='random', hidden=31)"),
  ("synthesizer(kind='factorized', hidden=32)", "synthesizer(kind='factorized', hidden=31)"),
  ("synthesizer(kind='dense', rank=8)", "synthesizer(kind='dense', rank=7)"),
)


def dense(tables: dict, example: Example) -> Callable[[int, int, int], float]:
  """Tables {"kernel1": [N, D, hidden], "bias1": [N, hidden], "kernel2": [N, hidden, L], "bias2": [N, L]}."""

  def logit(n: int, t: int, s: int) -> float:
    j, total = int(example.j[s]), 0.0
    if j >= tables["bias2"].shape[1]:
      return math.nan
    for r in range(tables["bias1"].shape[1]):
      inner = sum(float(x * w) for x, w in zip(example.x[t], tables["kernel1"][n, :, r], strict=True))
      total += float(tables["kernel2"][n, r, j]) * max(0.0, inner + float(tables["bias1"][n, r]))
    return total + float(tables["bias2"][n, j])

  return logit


def of_positions(length: int, example: Example, entry: Callable[[int, int, int], float]) -> Callable:
  """The logit entry(n, i, j) of the positions i, j < `length`."""

  def logit(n: int, t: int, s: int) -> float:
    i, j = int(example.i[t]), int(example.j[s])
    return float(entry(n, i, j)) if max(i, j) < length else math.nan

  return logit


def random(tables: dict, example: Example) -> Callable[[int, int, int], float]:
  """Tables {"logits": [N, L, L]}."""
  return of_positions(tables["logits"].shape[1], example, lambda n, i, j: tables["logits"][n, i, j])


def factorized(tables: dict, example: Example) -> Callable[[int, int, int], float]:
  """Tables {"rows": [N, L, rank], "columns": [N, L, rank]}."""
  rows, columns = tables["rows"], tables["columns"]
  return of_positions(rows.shape[1], example, lambda n, i, j: sum(rows[n, i] * columns[n, j]))


KINDS = {"dense": dense, "random": random, "factorized": factorized}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": the tables of the kind}, [T, N, V]."""
  logit = KINDS[variant.kind](params["per_head"], example)
  return softmax_mean(example, lambda n, t, s: logit(n, t, s) + bias(example, n, t, s))
