"""ALiBi: attention with linear biases.

Press et al. 2022 (arXiv 2108.12409), §3: softmax(q·k / √H − m·|i − j|) with one fixed slope m per head. The paper's
causal −m·(i − j) is taken symmetrically where a query also reads later keys. `slopes` follows the paper's
released code.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, scale, softmax_mean

SPECS = ("alibi",)
LIMITS = ()  # its class takes every value of its fields


def slopes(heads: int) -> list[float]:
  """The slope of each of N heads: 2^(−8n/N) for n = 1…N where N is a power of two.

  Otherwise those of the largest power of two M below N, then every second one of 2M (the 1st, 3rd, …), up to N.
  """
  power = 2 ** math.floor(math.log2(heads))
  first = [2.0 ** (-8.0 * n / power) for n in range(1, power + 1)]
  if power == heads:
    return first
  return first + slopes(2 * power)[0::2][: heads - power]


def fixed(variant: Any, dims: Any) -> dict:
  """The slopes of §3, of every query head."""
  del variant
  return {"per_head": {"slopes": slopes(dims.heads)}}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"per_head": {"slopes": [N]}}}, [T, N, V]."""
  slope = params["fixed"]["per_head"]["slopes"]

  def logit(n: int, t: int, s: int) -> float:
    distance = abs(int(example.i[t]) - int(example.j[s]))
    scaled = scale(variant, example) * dot(example, n, t, s)
    return scaled - float(slope[n]) * distance + bias(example, n, t, s)

  return softmax_mean(example, logit)
