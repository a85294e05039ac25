"""Performer: FAVOR+, positive random features of the softmax kernel.

Choromanski et al. 2021 (arXiv 2009.14794), §2.3, Lemma 1: exp(q·k) = E_w[exp(w·q − |q|²/2) exp(w·k − |k|²/2)] for
w ~ N(0, I), with q and k divided by H^(1/4) (§2.2), so that the kernel is exp(q·k / √H). Factors shared by all
features cancel.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, softmax_mean
from attention_lab.certify.oracle_shared import off_normal

SPECS = ("performer(features=8, chunk=4)",)
FAR_CAUSAL = 5.0  # size of queries and keys up to which a causal call, whose keys are not stabilised, keeps its digits
LIMITS = (("performer(features=1)", "performer(features=0)"), ("performer(chunk=1)", "performer(chunk=0)"))


def exponents(x: np.ndarray, directions: np.ndarray) -> np.ndarray:
  """Exponents log φ_m(x) = w_m·x' − |x'|²/2 with x' = x / H^(1/4); [H] and [features, H] -> [features]."""
  shrunk = x / len(x) ** 0.25
  half_square = sum(float(u * u) for u in shrunk) / 2
  return np.array([float(np.dot(w, shrunk)) - half_square for w in directions])


def fixed_law(variant: Any, leaves: dict, dims: Any) -> str:
  """§2.4: each direction is standard normal, and those of one block of H are orthogonal to each other."""
  drawn = np.asarray(leaves["directions"], float)
  if drawn.shape[1:] != (variant.features, dims.head):
    return f"directions have the shape {drawn.shape[1:]}, not {(variant.features, dims.head)}"
  for start in range(0, variant.features, dims.head):
    block = drawn[:, start : start + dims.head]
    units = block / np.linalg.norm(block, axis=-1, keepdims=True)
    off = float(np.max(np.abs(units @ units.swapaxes(1, 2) - np.eye(units.shape[1]))))
    if not off < 1e-5:
      return f"the directions {start} … {start + units.shape[1] - 1} are not orthogonal: a cosine is off by {off:.2g}"
  return off_normal("directions", drawn)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"fixed": {"directions": [features, H]}}, shared over heads, [T, N, V].

  The weight φ(q)·φ(k) / Σ φ(q)·φ(k) is a softmax over log φ(q)·φ(k), which no key is too long for.
  """
  del variant
  refuse_bias(example, "performer")
  directions = params["fixed"]["directions"]

  def log_kernel(n: int, t: int, s: int) -> float:
    q, k = example.q[t, n], example.k[s, kv_head(example, n)]
    return float(np.logaddexp.reduce(exponents(q, directions) + exponents(k, directions)))

  return softmax_mean(example, log_kernel)
