"""What several oracles share that narrow the readable keys, know an order of tokens, or draw random parameters.

Letters: T query positions, S key positions, N query heads.
"""

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from attention_lab.certify.oracle import Example


def restricted(example: Example, allows: Callable[[int, int, int], bool]) -> Example:
  """The example in which head n at query t reads a readable key s only where `allows(n, t, s)`."""
  both = np.zeros_like(example.readable)
  for n, t, s in np.ndindex(*both.shape):
    both[n, t, s] = bool(example.readable[n, t, s]) and bool(allows(n, t, s))
  return dataclasses.replace(example, readable=both)


def later(example: Example, n: int, t: int, s: int) -> list[int]:
  """The keys after s, in array order, that head n at query t may read."""
  return [l for l in range(s + 1, example.readable.shape[2]) if example.readable[n, t, l]]


def refuse_future(example: Example, name: str) -> None:
  """Raises ValueError where a query reads a key of a later position: `name` counts from a key up to the query."""
  for _, t, s in np.argwhere(example.readable):
    if example.j[s] > example.i[t]:
      raise ValueError(f"query {t} reads the later key {s}, {name} has no future: give causal=True")


def own_index(example: Example, t: int) -> int:
  """Where query t of self-attention stands in the array of the keys.

  With as many queries as keys they are the same tokens; of a choice of queries, the one key at the query's position.
  Raises ValueError where there is no such key, or more than one.
  """
  queries, keys = example.readable.shape[1:]
  if queries == keys:
    return t
  found = [s for s in range(keys) if example.j[s] == example.i[t]]
  if len(found) != 1:
    raise ValueError(f"{len(found)} keys are at query {t}'s position {example.i[t]}: give all queries, or one such key")
  return found[0]


def off_normal(name: str, draws: np.ndarray) -> str:
  """What keeps `draws` [draws, …] from standard normal entries without correlation; "" within six standard errors."""
  flat, few = draws.reshape(len(draws), -1), math.sqrt(len(draws))
  for power, wanted, spread in ((1, 0.0, 1.0), (4, 3.0, 96.0)):
    mean, bound = float(np.mean(flat**power)), 6 * math.sqrt(spread / flat.size)
    if not abs(mean - wanted) <= bound:
      return f"the entries of {name} have the mean power {power} of {mean:.3g}, not {wanted:.3g}"
  off = np.abs(flat.T @ flat / len(flat) - np.eye(flat.shape[1]))
  variance, others = float(np.max(np.diag(off))), float(np.max(off - np.diag(np.diag(off))))
  if not variance <= 6 * math.sqrt(2.0) / few:
    return f"the variance of an entry of {name} is {variance:.2g} off 1"
  return "" if others <= 6 / few else f"two entries of {name} have a correlation of {others:.2g}"
