"""Splits of generated examples, each example once, within a split and across splits."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Integer, UInt64

Examples = Mapping[str, np.ndarray]


def fill(
  make: Callable[[int], Examples], size: int, taken: UInt64[np.ndarray, "P"], *, idle: int, problem: str
) -> tuple[dict[str, np.ndarray], UInt64[np.ndarray, "Q"]]:
  """`size` examples with tokens whose fingerprints are not among `taken`, and `taken` with theirs.

  make: examples by field, from how many are still wanted; called again until `size` new ones are there. Raises
  ValueError(problem) after `idle` calls in a row without a new one.
  """
  parts: list[Examples] = []
  missing, vain = size, 0
  while missing:
    made = make(missing)
    prints = fingerprints(made["tokens"])
    _, first = np.unique(prints, return_index=True)
    new = np.sort(first[~np.isin(prints[first], taken)])[:missing]
    vain = 0 if len(new) else vain + 1
    if vain == idle:
      raise ValueError(problem)
    parts.append({field: array[new] for field, array in made.items()})
    taken = np.concatenate([taken, prints[new]])
    missing -= len(new)
  return {field: np.concatenate([part[field] for part in parts]) for field in parts[0]}, taken


def fingerprints(tokens: Integer[np.ndarray, "B T"]) -> UInt64[np.ndarray, "B"]:
  """64 bits a row: equal rows have equal ones, and two different rows that collide only cost one example."""
  factors = 2 * np.random.default_rng(0).integers(1 << 63, size=tokens.shape[1], dtype=np.uint64) + 1
  prints = np.zeros(len(tokens), np.uint64)
  for column, factor in enumerate(factors):
    prints += tokens[:, column].astype(np.uint64) * factor
  return prints
