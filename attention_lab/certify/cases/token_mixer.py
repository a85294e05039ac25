"""Token mixing by a multi-layer perceptron along the sequence, a control.

Tolstikhin et al. 2021 (MLP-Mixer: An all-MLP Architecture for Vision, arXiv 2105.01601), §2, eq. 1: W2 gelu(W1 x),
the same for every channel, without the norm and the residual, which are the block's. Row s of W1 and column t of W2
belong to the tokens at these places of the array; padding counts as 0. gelu in its tanh form (Hendrycks & Gimpel
2016, arXiv 1606.08415, §2).
"""

import math
from typing import Any

import numpy as np

from attention_lab.certify.oracle import Example, refuse_bias
from attention_lab.certify.oracle_shared import key_index, key_input

SPECS = ("token_mixer(hidden=2)",)
LIMITS = (("token_mixer(hidden=1)", "token_mixer(hidden=0)"),)


def gelu(x: float) -> float:
  """The tanh form: x / 2 · (1 + tanh(√(2/π) (x + 0.044715 x³)))."""
  return 0.5 * x * (1.0 + math.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def oracle(variant: Any, params: dict, example: Example) -> np.ndarray:
  """Mixing with params {"kernel1": [L, hidden], "bias1": [hidden], "kernel2": [hidden, L], "bias2": [L]}, [T, D].

  A token is counted for a query that may read it; a query that may read nothing gets zeros.
  """
  refuse_bias(example, "token_mixer")
  x, (_, queries, keys) = key_input(example), example.readable.shape
  out = np.zeros((queries, x.shape[1]))
  for t in range(queries):
    read = [s for s in range(keys) if example.readable[0, t, s]]
    column = key_index(example, t)
    for d in range(x.shape[1]):
      for r in range(variant.hidden):
        inner = sum(float(x[s, d] * params["kernel1"][s, r]) for s in read) + float(params["bias1"][r])
        out[t, d] += gelu(inner) * params["kernel2"][r, column]
      out[t, d] = out[t, d] + params["bias2"][column] if read else 0.0
  return out
