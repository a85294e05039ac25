"""Comparing two outputs, and saying where they differ most."""

from typing import Any

import numpy as np

from attention_lab.certify.finding import Refuted

FORWARD = 2e-5  # largest error of a float32 output, relative to the largest entry of the reference (at least 1)
GRADIENT = 2e-4  # the same for a directional derivative


def same(given: Any, expected: Any, what: str, *, tolerance: float = FORWARD, shape: Any = "", seed: int = -1) -> float:
  """The largest relative error of `given`; raises Refuted above `tolerance` or where only one of them is finite.

  The reported position has the axes' names for outputs `B T N V`, else plain indices.
  """
  given, expected = np.asarray(given, np.float64), np.asarray(expected, np.float64)
  if given.shape != expected.shape:
    raise Refuted(f"{what}: the output has shape {given.shape}, not {expected.shape}", shape=shape, seed=seed)
  if not given.size:
    return 0.0
  errors = np.abs(given - expected) / max(1.0, float(np.max(np.abs(expected))))
  errors = np.where(np.isnan(errors), np.inf, errors)
  worst = np.unravel_index(int(np.argmax(errors)), errors.shape)
  if errors[worst] > tolerance:
    values = f"{given[worst]:.6g} where {expected[worst]:.6g} is right"
    raise Refuted(
      f"{what}: {values} (error {errors[worst]:.1e} > {tolerance:.0e})", shape=shape, seed=seed, position=place(worst)
    )
  return float(errors[worst])


def place(index: tuple) -> str:
  """`example 0, query 3, head 1, entry 0` for an index into `B T N V`."""
  names = ("example", "query", "head", "entry") if len(index) == 4 else [f"axis {axis}" for axis in range(len(index))]
  return ", ".join(f"{name} {int(where)}" for name, where in zip(names, index, strict=True))
