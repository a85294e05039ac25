"""Shared parts of generated datasets: rules on sizes, distinct draws, unique examples, the accuracy of a solver."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Int, Integer, UInt64

Examples = Mapping[str, np.ndarray]  # arrays by field


def check(rules: Mapping[str, bool]) -> None:
  """Raises ValueError with the message, after `--config.data.`, of the first rule that does not hold."""
  for message, holds in rules.items():
    if not holds:
      raise ValueError(f"--config.data.{message}")


def distinct(rng: np.random.Generator, count: int, among: int, size: int) -> Int[np.ndarray, "B K"]:
  """[count, size] of 0 … among−1 in random order, distinct in each row (Floyd's algorithm, all rows at once)."""
  drawn = np.full((count, size), -1, np.int64)
  for column, last in enumerate(range(among - size, among)):
    candidate = rng.integers(0, last + 1, count)
    taken = (drawn[:, :column] == candidate[:, None]).any(axis=1)
    drawn[:, column] = np.where(taken, last, candidate)
  return rng.permuted(drawn, axis=1)


def fill(
  make: Callable[[int], Examples], size: int, taken: UInt64[np.ndarray, "P"], *, idle: int, problem: str
) -> tuple[dict[str, np.ndarray], UInt64[np.ndarray, "Q"]]:
  """Examples that are unique within a split and across splits.

  Args:
    make: examples by field, `tokens` among them, from how many are still missing; called until `size` new ones exist.
    size: the number of examples wanted.
    taken: fingerprints of the examples of other splits.
    idle: calls in a row without a new example, after which to give up.
    problem: the message of the error then raised.

  Returns:
    `size` examples by field, and `taken` with their fingerprints appended.

  Raises:
    ValueError: `problem`, after `idle` calls in a row without a new example.
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
  draws = np.random.default_rng(0).integers(1 << 63, size=tokens.shape[1], dtype=np.uint64)
  factors: np.ndarray = 2 * np.asarray(draws) + 1
  prints = np.zeros(len(tokens), np.uint64)
  for column, factor in enumerate(factors):
    prints += tokens[:, column].astype(np.uint64) * factor
  return prints


def accuracy(predictions: Int[np.ndarray, "B T"], targets: Int[np.ndarray, "B T"]) -> float:
  """The fraction of the asked positions (targets >= 0) at which the prediction is the target."""
  asked = targets >= 0
  return float((predictions == targets)[asked].mean())
