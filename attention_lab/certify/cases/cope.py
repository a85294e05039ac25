"""Contextual position encoding: positions are counted by gates that the query opens at each key.

Golovneva et al. 2024 (Contextual Position Encoding: Learning to Count What's Important, arXiv 2405.18719), §4: g_ij
= σ(q_i·k_j), p_ij = Σ_{j ≤ l ≤ i} g_il, at most positions − 1; z_i[m] = q_i·e[m], and z_i at p between its two
integers, linearly, is added to the logit. As in the released code the gates take the scaled logit, and one that may
not be read counts nothing; the keys l are taken in array order.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, scale, softmax_mean
from attention_lab.certify.oracle_shared import later, logistic, refuse_future

SPECS = ("cope(positions=3)",)
LIMITS = (("cope(positions=1)", "cope(positions=0)"),)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"codes": [positions, H]}, [T, N, V]; raises ValueError where the future is read."""
  refuse_future(example, "cope")
  codes = params["codes"]

  def score(n: int, t: int, s: int) -> float:
    return scale(variant, example) * dot(example, n, t, s)

  def code(n: int, t: int, m: int) -> float:
    return sum(float(a * b) for a, b in zip(example.q[t, n], codes[m], strict=True))

  def logit(n: int, t: int, s: int) -> float:
    count = sum(logistic(score(n, t, l)) for l in [s, *later(example, n, t, s)])
    distance = min(count, variant.positions - 1.0)
    low, high = math.floor(distance), math.ceil(distance)
    between = (1.0 - (distance - low)) * code(n, t, low) + (distance - low) * code(n, t, high)
    return score(n, t, s) + between + bias(example, n, t, s)

  return softmax_mean(example, logit)
