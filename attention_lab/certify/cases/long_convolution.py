"""Long convolution, a control: a filter as long as the sequence, in place of queries and keys.

Fu et al. 2023 (Simple Hardware-Efficient Long Convolutions for Sequence Modeling, arXiv 2302.06646), §3: y = h * v
with h the learned filter squashed towards 0, sign(f) max(|f| − λ, 0). Here one filter a head, where the paper has
one a channel; a second filter reads the later tokens where the mask lets them be read.
"""

from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, kv_head, refuse_bias

SPECS = ("long_convolution(squash=0.1)",)
LIMITS = (("long_convolution(squash=0.0)", "long_convolution(squash=-0.001)"),)


def squashed(f: float, by: float) -> float:
  """f, nearer to 0 by as much, or 0."""
  return max(abs(f) - by, 0.0) * (1.0 if f > 0.0 else -1.0)


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Σ_s h[i − j] v_s over readable keys with params {"per_head": {"filter": [N, L], "backward": [N, L]}}, [T, N, V]."""
  refuse_bias(example, "long_convolution")
  filters, (heads, queries, keys) = params["per_head"], example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(queries):
      for s in range(keys):
        distance = int(example.i[t]) - int(example.j[s])
        taps = filters["filter" if distance >= 0 else "backward"][n]
        if example.readable[n, t, s] and abs(distance) < len(taps):
          out[t, n] += squashed(float(taps[abs(distance)]), variant.squash) * example.v[s, kv_head(example, n)]
  return out
