"""How large the gradients of each part of a model are, and a line for a layer whose gradients vanish or explode.

The rule: over 50 recorded steps, a layer's median gradient norm is less than 1e-5, or more than 1e5, of the median of
those of all other parts (layers, embeddings, head). Each layer is named once. Where all parts shrink or grow together,
nothing is named: that shows in `grad_norm`.
"""

import math
import re
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import optax
from jaxtyping import Array

WINDOW = 50  # recorded steps
FACTOR = 1e5  # ratio to the other parts beyond which a layer is named
PREFIX = "grad_norm/"  # of the names of these metrics
_LAYER = re.compile(r"(?:(.*?)/)?layers/(\d+)(?:/|$)")


def norms(gradients: Any) -> dict[str, Array]:
  """The global norm of the gradients of each part of a tree: `layer_0`, …, and the rest by its top-level names.

  A layer is what lies under `…layers/i…`; where there are several stacks of layers they keep their paths,
  `encoder/layer_0`.
  """
  leaves = jax.tree_util.tree_leaves_with_path(gradients)
  paths = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
  stacks = {match.group(1) for match in map(_LAYER.match, paths) if match}
  parts: dict[str, list[Array]] = {}
  for path, (_, leaf) in zip(paths, leaves, strict=True):
    parts.setdefault(_part(path, len(stacks) > 1), []).append(leaf)
  return {name: optax.global_norm(leaves) for name, leaves in sorted(parts.items())}


class Diagnosis:
  """A watch over the gradient norms of recorded steps."""

  def __init__(self, seeds: Sequence[int]):
    self._seeds = seeds
    self._rows: list[list[dict[str, float]]] = [[] for _ in seeds]
    self._named: set[tuple[int, str]] = set()

  def record(self, step: int, rows: Sequence[Mapping[str, float]]) -> list[str]:
    """The metrics of one step, one row a seed; a line for each layer that is named now."""
    lines = []
    for seed, window, row in zip(self._seeds, self._rows, rows, strict=True):
      part_norms = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
      if all(map(math.isfinite, part_norms.values())):
        window.append(part_norms)
      if len(window) >= WINDOW:
        lines += [self._line(seed, step, name, ratio) for name, ratio in _outliers(window) if self._is_new(seed, name)]
        window.clear()
    return lines

  def _is_new(self, seed: int, name: str) -> bool:
    known = (seed, name) in self._named
    self._named.add((seed, name))
    return not known

  def _line(self, seed: int, step: int, name: str, ratio: float) -> str:
    what = "vanishes" if ratio < 1 else "explodes"
    whose = f" of seed {seed}" if len(self._seeds) > 1 else ""
    return f"{name}{whose} {what}: its gradient norm is {ratio:.1e} of the other parts' (medians up to step {step})"


def _outliers(rows: Sequence[Mapping[str, float]]) -> list[tuple[str, float]]:
  """(layer, its norm in those of the other parts) where that is out of bounds."""
  medians = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
  outliers = []
  for name, norm in medians.items():
    others = [value for other, value in medians.items() if other != name]
    usual = statistics.median(others) if others else 0.0
    if usual > 0 and "layer_" in name and not usual / FACTOR <= norm <= usual * FACTOR:
      outliers.append((name, norm / usual))
  return outliers


def _part(path: str, several: bool) -> str:
  match = _LAYER.match(path)
  if not match:
    return path.partition("/")[0]
  stack = f"{match.group(1)}/" if several and match.group(1) else ""
  return f"{stack}layer_{match.group(2)}"
