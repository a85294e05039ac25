"""Nyström attention: the matrix of softmax attention from a few landmarks, means of neighbouring queries and keys.

Xiong et al. 2021 (Nyströmformer, arXiv 2102.03902), §3.2: eq. 13, F Z (B v) with F = softmax(q k̃ᵀ / √H),
A = softmax(q̃ k̃ᵀ / √H), B = softmax(q̃ kᵀ / √H); eq. 14, Z the iterative pseudo-inverse of A (Razavi et al. 2014),
Z ← ¼ Z (13 I − A Z (15 I − A Z (7 I − A Z))) from Z = Aᵀ / (‖A‖₁ ‖A‖∞). Landmark m of `landmarks` is the mean of the
valid tokens of ranks r with floor(r · landmarks / n) = m, out of n valid ones in array order; one without tokens does
not exist. The depthwise convolution beside it is left out.

The oracle needs all rows: a landmark is a mean over queries, so that a part of the queries gives another output.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias, scale, softmax
from attention_lab.certify.oracle_shared import group_means, scores

SPECS = ("nystrom(landmarks=3)",)
LIMITS = (("nystrom(landmarks=1)", "nystrom(landmarks=0)"), ("nystrom(iterations=1)", "nystrom(iterations=0)"))
ALL_ROWS = True


def inverse(matrix: np.ndarray, iterations: int) -> np.ndarray:
  """The iterative pseudo-inverse of [a, b], [b, a]; ‖·‖₁ is the largest column sum, ‖·‖∞ the largest row sum."""
  identity = np.eye(len(matrix))
  out = matrix.T / (np.abs(matrix).sum(axis=0).max() * np.abs(matrix).sum(axis=1).max())
  for _ in range(iterations):
    product = matrix @ out
    out = out @ (13 * identity - product @ (15 * identity - product @ (7 * identity - product))) / 4
  return out


def landmarks(tokens: list[np.ndarray], count: int) -> list[np.ndarray]:
  """Means of the tokens by floor(rank · count / number of tokens)."""
  return group_means(tokens, [rank * count // len(tokens) for rank in range(len(tokens))])


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention of one example with all its rows; a query is valid if it may read anything, a key if read, [T, N, V]."""
  del params
  refuse_bias(example, "nystrom")
  heads, queries, keys = example.readable.shape
  factor = scale(variant, example)
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    g = kv_head(example, n)
    asking = [t for t in range(queries) if example.readable[n, t].any()]
    read = [s for s in range(keys) if example.readable[n, :, s].any()]
    if not read:
      continue
    k, v = [example.k[s, g] for s in read], np.array([example.v[s, g] for s in read])
    few_q = landmarks([example.q[t, n] for t in asking], variant.landmarks)
    few_k = landmarks(k, variant.landmarks)
    core = np.array([softmax(scores(q, few_k, factor)) for q in few_q])
    gathered = np.array([softmax(scores(q, k, factor)) for q in few_q]) @ v
    values = inverse(core, variant.iterations) @ gathered
    for t in asking:
      out[t, n] = np.array(softmax(scores(example.q[t, n], few_k, factor))) @ values
  return out
