"""What more than one of the later oracles shares: weights of a row, masks by position, states over positions.

Letters: T query positions, S key positions, N query heads, K kv heads, H head width, V value width.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from attention_lab.certify.oracle import Example, bias, dot, kv_head, scale, softmax_mean


def scaled_logit(variant: Any, example: Example) -> Callable[[int, int, int], float]:
  """The usual logit of (n, t, s): q·k times the variant's scale, plus the caller's bias."""
  factor = scale(variant, example)
  return lambda n, t, s: factor * dot(example, n, t, s) + bias(example, n, t, s)


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


def softplus(x: float) -> float:
  """log(1 + exp(x)), for any x."""
  return float(np.logaddexp(0.0, x))


def affine(gate: dict, example: Example, g: int, s: int) -> float:
  """y_s·W[:, g] + b[g], with {"kernel": [D, K], "bias": [K]} and y the layer input at the keys."""
  return float(key_input(example)[s] @ gate["kernel"][:, g] + gate["bias"][g])


def fading(gate: dict, example: Example) -> Callable[[int, int], float]:
  """The decay exp(−exp(A) · softplus(y W + b)) of Mamba-2, with A = gate["rate"] [K]; `gate` else as in `affine`."""
  return lambda g, s: math.exp(-math.exp(float(gate["rate"][g])) * softplus(affine(gate, example, g, s)))


def outer_write(example: Example) -> Callable[[np.ndarray, int, int], np.ndarray]:
  """S + k vᵀ."""
  return lambda state, g, s: state + np.outer(example.k[s, g], example.v[s, g])


def delta_write(gate: dict, example: Example) -> Callable[[np.ndarray, int, int], np.ndarray]:
  """S + β k (v − Sᵀk)ᵀ with k of unit length and β = σ(y W + b); `gate` as in `affine`."""

  def write(state: np.ndarray, g: int, s: int) -> np.ndarray:
    k = unit(example.k[s, g])
    return state + logistic(affine(gate, example, g, s)) * np.outer(k, example.v[s, g] - state.T @ k)

  return write


def state_read(
  example: Example,
  decay: Callable[[int, int], float | np.ndarray],
  write: Callable[[np.ndarray, int, int], np.ndarray],
) -> Float[np.ndarray, "T N V"]:
  """(S + diag(a) S̄)ᵀ q / √H, anew for each query; S ← write(diag(decay(g, s)) S, g, s) from S = 0 [H, V].

  g is the kv head; a decay is one number or [H]. S runs in array order over the readable keys up to the query's
  position, S̄ in reversed order over the readable keys of later positions: nothing where a mask is causal. a is the
  decay of the query's own key, which S has read and S̄ has not; a = 1 where that key is hidden. A segment's border and
  padding are unreadable, so that they leave no trace and do not count as time.
  """
  heads, queries, keys = example.readable.shape
  width, value = example.q.shape[2], example.v.shape[2]
  fade = lambda state, g, s: np.reshape(decay(g, s), (-1, 1)) * state
  out = np.zeros((queries, heads, value))
  for n in range(heads):
    g = kv_head(example, n)
    for t in range(queries):
      read = [s for s in range(keys) if example.readable[n, t, s]]
      state, later = np.zeros((width, value)), np.zeros((width, value))
      for s in read:
        if example.j[s] <= example.i[t]:
          state = write(fade(state, g, s), g, s)
      for s in reversed(read):
        if example.j[s] > example.i[t]:
          later = write(fade(later, g, s), g, s)
        elif example.j[s] == example.i[t]:
          later = fade(later, g, s)
      for h in range(width):
        out[t, n] += example.q[t, n, h] * (state[h] + later[h]) / np.sqrt(width)
  return out
