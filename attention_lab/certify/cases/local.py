"""Sliding-window attention: softmax over the keys nearer than the window.

Beltagy et al. 2020 (Longformer, arXiv 2004.05150), §3.1, "Sliding Window": key j is read by query i where |i − j| <
window, the own position counted; the caller's mask holds as well.
"""

import dataclasses
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, scale, softmax_mean

SPECS = ("local(window=3)",)
LIMITS = (("local(window=1)", "local(window=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention over |i − j| < window, by positions, [T, N, V]."""
  del params
  heads, queries, keys = example.readable.shape
  near = np.zeros_like(example.readable)
  for n in range(heads):
    for t in range(queries):
      for s in range(keys):
        near[n, t, s] = example.readable[n, t, s] and abs(int(example.i[t]) - int(example.j[s])) < variant.window

  def logit(n: int, t: int, s: int) -> float:
    return scale(variant, example) * dot(example, n, t, s) + bias(example, n, t, s)

  return softmax_mean(dataclasses.replace(example, readable=near), logit)
