"""Scaled dot-product attention.

Vaswani et al. 2017 (arXiv 1706.03762), §3.2.1, eq. 1: softmax(q·kᵀ / √H) v.
Soft cap: Gemma 2 (arXiv 2408.00118), §2: logits ← cap · tanh(logits / cap), after scaling.
Grouped heads: Ainslie et al. 2023 (arXiv 2305.13245), §2.2.
Sink: gpt-oss (OpenAI 2025, arXiv 2508.10925), §2: exp(l) / (exp(sink) + Σ exp(l)), one learned logit a head.
Temperature: one learned factor exp(t) a head on the scaled logits, before the cap.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, scale, softmax_mean
from attention_lab.certify.oracle_shared import logistic

SPECS = ("softmax", "softmax(scale=0.3, soft_cap=2.0)", "softmax(sink=True, temperature=True)")
LIMITS = (
  ("softmax(soft_cap=0.001)", "softmax(soft_cap=0.0)"),
  ("softmax(soft_cap=2.0)", "softmax(soft_cap=2.0, implementation='cudnn')"),
  ("softmax(implementation='tokamax')", "softmax(sink=True, implementation='tokamax')"),
)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Softmax attention of one example, [T, N, V]; the bias is added after scaling and capping.

  params {"per_head": {"sink": [N], "temperature": [N]}}, each where the variant has it.
  """
  sink, temperature = (getattr(variant, name, False) for name in ("sink", "temperature"))

  def logit(n: int, t: int, s: int) -> float:
    scaled = scale(variant, example) * dot(example, n, t, s)
    if temperature:
      scaled *= math.exp(params["per_head"]["temperature"][n])
    if variant.soft_cap is not None:
      scaled = variant.soft_cap * math.tanh(scaled / variant.soft_cap)
    return scaled + bias(example, n, t, s)

  out = softmax_mean(example, logit)
  if sink:
    for t, n in np.ndindex(*out.shape[:2]):
      logits = [logit(n, t, int(s)) for s in np.flatnonzero(example.readable[n, t])]
      if logits:
        out[t, n] *= logistic(float(np.logaddexp.reduce(logits)) - float(params["per_head"]["sink"][n]))
  return out
