"""What the oracles on grids and over blocks share: places on a grid, groups of keys, and attention to their means.

Letters: T query positions, S key positions, N query heads, K kv heads, H head width, V value width.
"""

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from attention_lab.certify.oracle import Example, kv_head, scale, softmax


def place(p: int, columns: int) -> tuple[int, int]:
  """(row, column) of position p on a grid read row by row, without class tokens before it. ValueError: columns < 1."""
  if columns < 1:
    raise ValueError(f"columns={columns}: this oracle reads no grid from the positions, give columns of at least 1")
  return divmod(p, columns)


def refuse_positions(example: Example, name: str) -> None:
  """Raises ValueError unless key s stands at position s: `name` counts in places of the array."""
  if not np.array_equal(example.j, np.arange(len(example.j))):
    raise ValueError(f"{name} counts in array indices: leave the positions out")


def mean_row(array: Float[np.ndarray, "S K C"], g: int, members: Sequence[int]) -> Float[np.ndarray, " C"]:
  """The mean over `members` of the rows of kv head g; a single member's is its own row."""
  return sum(array[s, g] for s in members) / len(members)


def inner(a: Float[np.ndarray, " H"], b: Float[np.ndarray, " H"]) -> float:
  """Σ_h a_h b_h."""
  return sum(float(x * y) for x, y in zip(a, b, strict=True))


def groups(example: Example, n: int, t: int, group: Callable[[int], Hashable]) -> dict[Any, list[int]]:
  """The keys that query t of head n may read, by the name `group(j)` of their position's group."""
  members: dict[Any, list[int]] = {}
  for s in range(len(example.j)):
    if example.readable[n, t, s]:
      members.setdefault(group(int(example.j[s])), []).append(s)
  return members


def summary_mean(
  variant: Any,
  example: Example,
  group: Callable[[int], Hashable],
  exact: Callable[[int, int], bool],
  pooled: Callable[[int, Any], bool],
) -> Float[np.ndarray, "T N V"]:
  """One softmax over single keys, those with exact(i, j), and over the means of groups, those with pooled(i, group).

  A group's mean is over those of its keys that the row may read, and a group without any is absent: under q_valid and
  kv_valid alone a row may read every valid key or, if its query is padding, none; so that its keys are the valid ones.
  """
  heads, queries, _ = example.readable.shape
  factor = scale(variant, example)
  out = np.zeros((queries, heads, example.v.shape[2]))
  for n, t in np.ndindex(heads, queries):
    g, i, members = kv_head(example, n), int(example.i[t]), groups(example, n, t, group)
    slots = [[s] for read in members.values() for s in read if exact(i, int(example.j[s]))]
    slots += [read for name, read in members.items() if pooled(i, name)]
    logits = [factor * inner(example.q[t, n], mean_row(example.k, g, slot)) for slot in slots]
    for weight, slot in zip(softmax(logits), slots, strict=True):
      out[t, n] += weight * mean_row(example.v, g, slot)
  return out
