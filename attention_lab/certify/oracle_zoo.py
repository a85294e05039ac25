"""What more than one of the later oracles shares: weights of a row, masks by position, states over positions.

Letters: T query positions, S key positions, N query heads, K kv heads, H head width, V value width.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from attention_lab.certify.oracle import Example, bias, dot, kv_head, scale, softmax_mean


def scaled_logit(variant: Any, example: Example) -> Callable[[int, int, int], float]:
  """The usual logit of (n, t, s): q·k times the variant's scale, plus the caller's bias."""
  factor = scale(variant, example)
  return lambda n, t, s: factor * dot(example, n, t, s) + bias(example, n, t, s)


def row_sum(
  example: Example, logit: Callable[[int, int, int], float], weights: Callable[[list[float]], Sequence[float]]
) -> Float[np.ndarray, "T N V"]:
  """Σ_s w_s v_s over readable keys, with w = weights(logits of the row's readable keys); none readable: 0."""
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(queries):
      read = [s for s in range(keys) if example.readable[n, t, s]]
      if not read:
        continue
      for s, weight in zip(read, weights([logit(n, t, s) for s in read]), strict=True):
        out[t, n] += weight * example.v[s, kv_head(example, n)]
  return out


def shares(weights: Sequence[float]) -> list[float]:
  """Weights over their sum; all 0 where the sum is 0."""
  total = sum(weights)
  return [weight / total if total else 0.0 for weight in weights]


def pattern_mean(variant: Any, example: Example, allows: Callable[[int, int], bool]) -> Float[np.ndarray, "T N V"]:
  """Softmax attention over the keys that are readable and whose positions `allows(i, j)`."""
  both = np.zeros_like(example.readable)
  for n, t, s in np.ndindex(*both.shape):
    both[n, t, s] = example.readable[n, t, s] and allows(int(example.i[t]), int(example.j[s]))
  return softmax_mean(dataclasses.replace(example, readable=both), scaled_logit(variant, example))


def unit(x: Float[np.ndarray, " H"]) -> Float[np.ndarray, " H"]:
  """A vector over its L2 norm, √(Σ x² + 1e-6)."""
  return x / np.sqrt(sum(float(u * u) for u in x) + 1e-6)


def logistic(x: float) -> float:
  """1 / (1 + exp(−x)), for any x."""
  return float(np.exp(-np.logaddexp(0.0, -x)))


def key_input(example: Example) -> Float[np.ndarray, "S D"]:
  """The layer input at the keys: y, or x where the example has no y."""
  return example.x if example.y is None else example.y


def state_read(example: Example, step: Callable[[np.ndarray, int, int], np.ndarray]) -> Float[np.ndarray, "T N V"]:
  """S ← step(S, g, s) over the readable keys s in array order from S = 0 [H, V], then Sᵀq / √H; anew for each query.

  g is the kv head. A segment's border, padding and the future are all unreadable, so that they leave no trace. Raises
  ValueError where a query reads a key of a later position.
  """
  heads, queries, keys = example.readable.shape
  width, value = example.q.shape[2], example.v.shape[2]
  out = np.zeros((queries, heads, value))
  for n in range(heads):
    for t in range(queries):
      state = np.zeros((width, value))
      for s in range(keys):
        if example.readable[n, t, s]:
          if example.j[s] > example.i[t]:
            raise ValueError(f"query {t} reads the later key {s}, a state has no future: give causal=True")
          state = step(state, kv_head(example, n), s)
      for h in range(width):
        out[t, n] += example.q[t, n, h] * state[h] / np.sqrt(width)
  return out
