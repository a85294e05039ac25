"""What more than one oracle shares: masks and groups of keys, weights of a row, states over positions, random draws.

Letters: T query positions, S key positions, N query heads, K kv heads, H head width, V value width, D model width.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from attention_lab.certify.oracle import Example, bias, dot, kv_head, scale, softmax, softmax_mean


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


def key_index(example: Example, t: int) -> int:
  """Where query t of self-attention stands in the array of the keys.

  With as many queries as keys they are the same tokens; of a choice of queries, the one key at the query's position.
  Raises ValueError where there is no such key, or more than one.
  """
  queries, keys = example.readable.shape[1:]
  if queries == keys:
    return t
  keys_there = [s for s in range(keys) if example.j[s] == example.i[t]]
  if len(keys_there) != 1:
    count, position = len(keys_there), example.i[t]
    raise ValueError(f"{count} keys are at query {t}'s position {position}: give all queries, or one such key")
  return keys_there[0]


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
  allowed = restricted(example, lambda _, t, s: allows(int(example.i[t]), int(example.j[s])))
  return softmax_mean(allowed, scaled_logit(variant, example))


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
  """The decay exp(−exp(A) · softplus(y W + b)) of Mamba-2, with A = gate["rate"] of a key head; else as `affine`."""
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


def readable_keys(example: Example, n: int, t: int) -> list[int]:
  """The array indices of the keys that head n may read at query t, ascending."""
  return [s for s in range(example.readable.shape[2]) if example.readable[n, t, s]]


def scores(query: Float[np.ndarray, " H"], keys: Sequence[Float[np.ndarray, " H"]], factor: float) -> list[float]:
  """Query·key times `factor`, for each of the keys."""
  return [factor * inner(query, key) for key in keys]


def softmax_read(
  query: Float[np.ndarray, " H"],
  keys: Sequence[Float[np.ndarray, " H"]],
  values: Sequence[Float[np.ndarray, " V"]],
  factor: float,
) -> Float[np.ndarray, " V"]:
  """Σ softmax(factor · query·key) value, over at least one key."""
  weighted = (w * value for w, value in zip(softmax(scores(query, keys, factor)), values, strict=True))
  return functools.reduce(np.add, weighted)


def group_means(
  vectors: Sequence[Float[np.ndarray, " H"]], groups: Sequence[Hashable]
) -> list[Float[np.ndarray, " H"]]:
  """The mean vector of each group that has a member, in order of first appearance; `groups` names each one's group."""
  members: dict[Hashable, list[np.ndarray]] = {}
  for vector, group in zip(vectors, groups, strict=True):
    members.setdefault(group, []).append(vector)
  return [functools.reduce(np.add, each) / len(each) for each in members.values()]


def grid_cell(p: int, columns: int) -> tuple[int, int]:
  """(row, column) of position p on a grid read row by row, without class tokens before it. ValueError: columns < 1."""
  if columns < 1:
    raise ValueError(f"columns={columns}: this oracle reads no grid from the positions, give columns of at least 1")
  return divmod(p, columns)


def refuse_positions(example: Example, name: str) -> None:
  """Raises ValueError unless key s stands at position s: `name` counts in array indices."""
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
