"""T5's relative position bias: one learned scalar for each head and each bucket of distances.

Raffel et al. 2020 (Exploring the Limits of Transfer Learning, arXiv 1910.10683), §2.1; the buckets as in the released
code: the first half of them exact, e = buckets / 2, then e + ⌊log(d / e) / log(max_distance / e) · (buckets − e)⌋, the
last one for all beyond. Bidirectional: half of the buckets for keys at or before the query, the other for later ones.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, bias, dot, softmax_mean

SPECS = ("t5(buckets=8, max_distance=6)", "t5(buckets=4, max_distance=6, bidirectional=False)")
LIMITS = (
  ("t5(buckets=4, max_distance=2)", "t5(buckets=3, max_distance=2)"),
  ("t5(buckets=8, max_distance=3)", "t5(buckets=8, max_distance=2)"),
  ("t5(buckets=2, max_distance=2, bidirectional=False)", "t5(buckets=1, max_distance=2, bidirectional=False)"),
  ("t5(buckets=6, max_distance=4, bidirectional=False)", "t5(buckets=6, max_distance=3, bidirectional=False)"),
)


def bucket(relative: int, buckets: int, max_distance: int, bidirectional: bool) -> int:
  """The bucket of `relative`, key position minus query position; the logarithm's floor by whole numbers, exactly."""
  if bidirectional:
    half = buckets // 2
    return bucket(-abs(relative), half, max_distance, False) + (half if relative > 0 else 0)
  distance, exact = max(-relative, 0), buckets // 2
  if distance < exact:
    return distance
  steps, large = buckets - exact, 0
  while large < steps - 1 and distance**steps * exact ** (large + 1) >= max_distance ** (large + 1) * exact**steps:
    large += 1
  return exact + large


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Attention with params {"per_head": {"bias": [N, buckets]}}, [T, N, V]."""
  table = params["per_head"]["bias"]

  def logit(n: int, t: int, s: int) -> float:
    relative = int(example.j[s]) - int(example.i[t])
    column = bucket(relative, variant.buckets, variant.max_distance, variant.bidirectional)
    return variant.scale * dot(example, n, t, s) + float(table[n, column]) + bias(example, n, t, s)

  return softmax_mean(example, logit)
