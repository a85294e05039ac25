"""Adaptive span: each head learns how far it looks.

Sukhbaatar et al. 2019 (Adaptive Attention Span in Transformers, arXiv 1905.07799), eq. 5, m_z(d) = min(max((R + z −
d) / R, 0), 1), and eq. 6, weights m_z(d) exp(l) / Σ m_z(d) exp(l), with d = |i − j| by positions and the ramp R.
Here z = max_span · clip(span, 0, 1).
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, softmax_mean
from attention_lab.certify.oracle_shared import restricted, scaled_logit

SPECS = ("adaptive_span(max_span=4, ramp=2)",)
LIMITS = (
  ("adaptive_span(max_span=1)", "adaptive_span(max_span=0)"),
  ("adaptive_span(ramp=1)", "adaptive_span(ramp=0)"),
  ("adaptive_span(initial=0.0)", "adaptive_span(initial=-0.001)"),
  ("adaptive_span(initial=1.0)", "adaptive_span(initial=1.001)"),
  ("adaptive_span(penalty=0.0)", "adaptive_span(penalty=-1e-9)"),
)


def losses(variant: Any, params: dict, examples: list[Example]) -> dict[str, float]:
  """The mean span of a head, in positions, times the penalty."""
  del examples
  spans = [variant.max_span * min(max(float(span), 0.0), 1.0) for span in params["per_head"]["span"]]
  return {"span": variant.penalty * sum(spans) / len(spans)}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"span": [N]}}, [T, N, V]; a row whose every m is 0 gives zeros."""
  scaled = scaled_logit(variant, example)

  def soft_mask(n: int, t: int, s: int) -> float:
    z = variant.max_span * min(max(float(params["per_head"]["span"][n]), 0.0), 1.0)
    distance = abs(int(example.i[t]) - int(example.j[s]))
    return min(max((variant.ramp + z - distance) / variant.ramp, 0.0), 1.0)

  within = restricted(example, lambda n, t, s: soft_mask(n, t, s) > 0.0)
  return softmax_mean(within, lambda n, t, s: scaled(n, t, s) + math.log(soft_mask(n, t, s)))
