"""The oracles' base: one example in float64, the mask law as loops, and weighted means over keys.

An oracle is written from the paper by someone who has not read the implementation. It takes a single example with all
its heads, and favours explicit loops over speed: sizes are about 7.

Letters: T query positions, S key positions, N query heads, K kv heads, H head width, V value width, D model width.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int

if TYPE_CHECKING:  # an oracle knows which arrays its variant reads, and a type checker does not
  Absent = Any
else:
  Absent = None

# The names of what a mask can hold.
CONSTRAINTS = ("causal", "window", "prefix", "q_valid", "kv_valid", "q_segments", "k_segments", "explicit")


@dataclasses.dataclass(frozen=True)
class Tokens:
  """The L queries and S keys of an example in array order, for parts that read the tokens beside one (there L = S)."""

  q: Float[np.ndarray, "L N H"] | Absent  # of all tokens, where an example looks at a choice of queries
  rows: Int[np.ndarray, " T"]  # index of each of the example's queries
  q_valid: Bool[np.ndarray, " L"] | Absent = None  # False marks padding
  kv_valid: Bool[np.ndarray, " S"] | Absent = None  # False marks padding
  q_segments: Int[np.ndarray, " L"] | Absent = None
  k_segments: Int[np.ndarray, " S"] | Absent = None


@dataclasses.dataclass(frozen=True)
class Example:
  """One example, float64. `readable` is all the caller demands: causal, window, prefix, valid, segments, explicit."""

  q: Float[np.ndarray, "T N H"] | Absent
  k: Float[np.ndarray, "S K H"] | Absent
  v: Float[np.ndarray, "S K V"] | Absent
  readable: Bool[np.ndarray, "N T S"]
  i: Int[np.ndarray, " T"]  # positions of the queries
  j: Int[np.ndarray, " S"]  # positions of the keys; -1 = an empty slot
  x: Float[np.ndarray, "T D"] | Absent = None  # layer input at the queries
  y: Float[np.ndarray, "S D"] | Absent = None  # layer input at the keys
  bias: Float[np.ndarray, "N T S"] | Absent = None
  tokens: Tokens | Absent = None  # all those that the queries, and in self-attention the keys, are of


def readable(
  constraints: Mapping[str, Any], i: Int[np.ndarray, " T"], j: Int[np.ndarray, " S"], heads: int = 1
) -> Bool[np.ndarray, "N T S"]:
  """Which keys each query of one example may read: the conjunction of all constraints, by positions, never indices.

  `constraints` holds any of: causal bool; window W or (left, right); prefix int, with causal only; q_valid [T];
  kv_valid [S]; q_segments [T] with k_segments [S]; explicit [T, S] or [1 or N, 1 or T, 1 or S]. None means absent.
  Raises ValueError on any other key, on a prefix without causal, and on one kind of segments without the other.
  """
  present = {name: value for name, value in constraints.items() if value is not None}
  _check(present)
  out = np.zeros((heads, len(i), len(j)), bool)
  for n in range(heads):
    for t in range(len(i)):
      for s in range(len(j)):
        out[n, t, s] = _by_position(present, int(i[t]), int(j[s])) and _by_index(present, n, t, s, out.shape)
  return out


def _check(present: Mapping[str, Any]) -> None:
  unknown = sorted(set(present) - set(CONSTRAINTS))
  if unknown:
    raise ValueError(f"unknown constraints {unknown}; allowed are {CONSTRAINTS}")
  if "prefix" in present and not present.get("causal"):
    raise ValueError(f"prefix={present['prefix']} belongs to causal: give causal=True too, or drop it")
  if ("q_segments" in present) != ("k_segments" in present):
    raise ValueError("q_segments and k_segments come together: give both, or neither")


def _by_position(present: Mapping[str, Any], i: int, j: int) -> bool:
  if j == -1:
    return False
  if present.get("causal") and not (j <= i or ("prefix" in present and j < int(present["prefix"]))):
    return False
  if "window" in present:
    window = present["window"]
    left, right = window if isinstance(window, (tuple, list)) else (window, window)
    return -right < i - j < left
  return True


def _by_index(present: Mapping[str, Any], n: int, t: int, s: int, shape: tuple[int, int, int]) -> bool:
  if "q_valid" in present and not present["q_valid"][t]:
    return False
  if "kv_valid" in present and not present["kv_valid"][s]:
    return False
  if "q_segments" in present and present["q_segments"][t] != present["k_segments"][s]:
    return False
  if "explicit" in present:
    return bool(np.broadcast_to(present["explicit"], shape)[n, t, s])
  return True


def kv_head(example: Example, n: int) -> int:
  """The key and value head that query head n reads: blocked groups, n // (N // K)."""
  return n // (example.readable.shape[0] // example.v.shape[1])


def scale(variant: Any, example: Example) -> float:
  """The variant's `scale`, or 1/√H where it is None (Vaswani et al. 2017, arXiv 1706.03762, §3.2.1)."""
  return 1.0 / math.sqrt(example.q.shape[2]) if variant.scale is None else variant.scale


def dot(example: Example, n: int, t: int, s: int) -> float:
  """q·k of query head n at query t and key s, unscaled."""
  g = kv_head(example, n)
  return sum((float(example.q[t, n, h] * example.k[s, g, h]) for h in range(example.q.shape[2])), 0.0)


def bias(example: Example, n: int, t: int, s: int) -> float:
  """The caller's additive bias, 0 where none is given."""
  return 0.0 if example.bias is None else float(example.bias[n, t, s])


def refuse_bias(example: Example, name: str) -> None:
  """Raises ValueError where a bias is given: `name` has no logits that it could be added to."""
  if example.bias is not None:
    raise ValueError(f"{name} has no logits to add a bias to: drop the bias")


def softmax(logits: Sequence[float]) -> list[float]:
  """exp(l) / Σ exp(l), shifted by the largest logit; an empty list stays empty."""
  top = max(logits, default=0.0)
  exponentials = [math.exp(logit - top) for logit in logits]
  return [e / sum(exponentials) for e in exponentials]


def row_sum(
  example: Example,
  logit: Callable[[int, int, int], float],
  weights: Callable[[list[float]], Sequence[float]],
  value: Callable[[int, int, int], np.ndarray] | None = None,
) -> Float[np.ndarray, "T N V"]:
  """Σ_s w_s value(n, t, s) over readable keys, w = weights(their logits); `value`: v[s] unless given; none: 0."""
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    for t in range(queries):
      read = [s for s in range(keys) if example.readable[n, t, s]]
      row = weights([logit(n, t, s) for s in read]) if read else ()
      for s, weight in zip(read, row, strict=True):
        out[t, n] += weight * (example.v[s, kv_head(example, n)] if value is None else value(n, t, s))
  return out


def softmax_mean(
  example: Example,
  logit: Callable[[int, int, int], float],
  value: Callable[[int, int, int], np.ndarray] | None = None,
) -> Float[np.ndarray, "T N V"]:
  """`row_sum` with the weights softmax_s(logit(n, t, s))."""
  return row_sum(example, logit, softmax, value)


def kernel_mean(example: Example, features: Callable[[np.ndarray], Sequence[float]]) -> Float[np.ndarray, "T N V"]:
  """Σ_s φ(q)·φ(k_s) v_s / Σ_s φ(q)·φ(k_s) over the readable keys, with φ = `features`; none readable: 0."""
  heads, queries, keys = example.readable.shape
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n in range(heads):
    g = kv_head(example, n)
    for t in range(queries):
      numerator, denominator = np.zeros(example.v.shape[2]), 0.0
      for s in range(keys):
        if example.readable[n, t, s]:
          pairs = zip(features(example.q[t, n]), features(example.k[s, g]), strict=True)
          similarity = sum(float(a * b) for a, b in pairs)
          numerator += similarity * example.v[s, g]
          denominator += similarity
      if example.readable[n, t].any():
        out[t, n] = numerator / denominator
  return out
