"""Hard-coded attention, a control: each head looks at a fixed offset, through a Gaussian, without queries and keys.

You et al. 2020 (Hard-Coded Gaussian Attention for Neural Machine Translation, arXiv 2005.00742), §3: weights by a
normal density around the previous, the own or the next position; Raganato et al. 2020 (arXiv 2002.10260): fixed
patterns by position. Here the weights are normalised over the readable keys.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias, softmax_mean

SPECS = ("hard_coded",)
LIMITS = (("hard_coded(sigma=0.001)", "hard_coded(sigma=0.0)"),)
OFFSETS = (-1, 1, 0)  # of heads 0, 1, 2, and again from head 3


def fixed(variant: Any, dims: Any) -> dict:
  """Where each head looks: the previous, the next and the own position, in turn."""
  del variant
  return {"per_head": {"offset": [float(OFFSETS[n % 3]) for n in range(dims.heads)]}}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention by −(j − i − offset)² / 2 sigma², [T, N, V]."""
  del params
  refuse_bias(example, "hard_coded")

  def logit(n: int, t: int, s: int) -> float:
    away = int(example.j[s]) - int(example.i[t]) - OFFSETS[n % 3]
    return -(away**2) / (2.0 * variant.sigma**2)

  return softmax_mean(example, logit)
