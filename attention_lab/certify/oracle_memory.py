"""What the oracles of low rank and of memories share: means of groups of tokens, weights over a list of vectors.

Letters: T query positions, S key positions, N query heads, H head width.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float

from attention_lab.certify.oracle import Example, softmax


def readable_keys(example: Example, n: int, t: int) -> list[int]:
  """The array indices of the keys that head n may read at query t, ascending."""
  return [s for s in range(example.readable.shape[2]) if example.readable[n, t, s]]


def scores(query: Float[np.ndarray, " H"], keys: Sequence[Float[np.ndarray, " H"]], factor: float) -> list[float]:
  """Query·key times `factor`, for each of the keys."""
  return [factor * sum(float(a * b) for a, b in zip(query, key, strict=True)) for key in keys]


def softmax_read(
  query: Float[np.ndarray, " H"],
  keys: Sequence[Float[np.ndarray, " H"]],
  values: Sequence[Float[np.ndarray, " V"]],
  factor: float,
) -> Float[np.ndarray, " V"]:
  """Σ softmax(factor · query·key) value, over at least one key."""
  return sum(w * value for w, value in zip(softmax(scores(query, keys, factor)), values, strict=True))


def group_means(
  vectors: Sequence[Float[np.ndarray, " H"]], groups: Sequence[Hashable]
) -> list[Float[np.ndarray, " H"]]:
  """The mean vector of each group that has a member, in order of first appearance; `groups` names each one's group."""
  members: dict[Hashable, list[np.ndarray]] = {}
  for vector, group in zip(vectors, groups, strict=True):
    members.setdefault(group, []).append(vector)
  return [sum(each) / len(each) for each in members.values()]
