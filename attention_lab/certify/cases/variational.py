"""Variational attention: weights drawn from a log-normal distribution; without a key, softmax attention.

Fan et al. 2020 (Bayesian Attention Modules, arXiv 2010.10604), §3: unnormalised weights S_ij = exp(s_ij − σ² / 2 +
σ ε), whose mean is exp(s_ij), divided by their sum over the readable keys. An evaluation without randomness takes
the mean in place of S, which is softmax. The divergence from the prior is a loss and leaves the output alone.
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, softmax_mean
from attention_lab.certify.oracle_shared import scaled_logit

SPECS = ("variational",)
LIMITS = (
  ("variational(sigma=0.001)", "variational(sigma=0.0)"),
  ("variational(prior_sigma=0.001)", "variational(prior_sigma=0.0)"),
  ("variational(weight=0.0)", "variational(weight=-0.001)"),
)


def fixed(variant: Any, dims: Any) -> dict:
  """The number of each head, which its noise is drawn by: no two heads share it."""
  del variant
  return {"per_head": {"index": range(dims.heads)}}


def losses(variant: Any, params: dict, examples: list[Example]) -> dict[str, float]:
  """The divergence of N(s − σ²/2, σ²) from the prior N(−σ₀²/2, σ₀²), the mean over all readable pairs, weighted."""
  del params
  sigma, prior, pairs = variant.sigma, variant.prior_sigma, []
  for example in examples:
    logit = scaled_logit(variant, example)
    for n, t, s in np.argwhere(example.readable).tolist():
      off = (logit(n, t, s) - sigma**2 / 2) - (-(prior**2) / 2)
      pairs.append(math.log(prior) - math.log(sigma) + (sigma**2 + off**2) / (2 * prior**2) - 1 / 2)
  return {"kl": variant.weight * float(np.mean(pairs))}


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention without a key, by the means of the weights, [T, N, V]."""
  del params
  return softmax_mean(example, scaled_logit(variant, example))
