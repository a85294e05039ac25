"""Cross-validation: train and validation put together and cut into k parts, each the validation split once.

Examples are dealt in order of a hash of their inputs, class by class: equal inputs stand in one part whatever their
labels, and the parts, like the classes within them, differ in different inputs by one at most. The order of the
examples and the seed of a run play no part. Examples that share something but are not equal, such as windows of one
document or questions about one paragraph, may land in two parts.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from attention_lab.data import example_hashes
from attention_lab.data.dataset import SPLITS, Dataset, Describable, Split, digest

FOLDED = ("train", "validation")
JOINED = "train and validation"  # the name of the metadata about both together


class View:
  """A split made of examples of several splits, in any choice and order; nothing is copied until it is gathered."""

  describe: Callable[[int], str]  # an example as readable text, where every part has it

  def __init__(self, parts: Sequence[Split], rows: Int[np.ndarray, "N"]) -> None:
    """`rows` index the parts put one after another."""
    self._parts, self._rows = tuple(parts), rows
    self._starts = np.cumsum([0, *map(len, parts)])
    self._describers = [part.describe for part in parts if isinstance(part, Describable)]
    if len(self._describers) == len(parts):
      self.describe = self._describe

  def __len__(self) -> int:
    return len(self._rows)

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    rows = self._rows[indices]
    owner = np.searchsorted(self._starts, rows, side="right") - 1
    gathered = []
    for number in np.unique(owner) if len(rows) else [0]:
      places = np.flatnonzero(owner == number)
      gathered.append((places, self._parts[number][rows[places] - self._starts[number]]))
    if len(gathered) == 1:
      return gathered[0][1]
    order = np.argsort(np.concatenate([places for places, _ in gathered]))
    names = gathered[0][1]
    return {name: np.concatenate([batch[name] for _, batch in gathered])[order] for name in names}

  def _describe(self, index: int) -> str:
    row = int(self._rows[index])
    number = int(np.searchsorted(self._starts, row, side="right")) - 1
    return self._describers[number](row - int(self._starts[number]))


def fold(source: Dataset, folds: int, which: int) -> Dataset:
  """The source whose validation split is part `which` of `folds`, whose train split is the rest; test is unchanged.

  `folds` 0 is the source itself. `metadata["fold"]` is {"folds", "fold"}; sizes and label counts are those of the new
  splits, other metadata by split stands under JOINED; controls remain those of the splits as they were. Raises
  ValueError for a number of folds or a part that is none, fewer different inputs than folds, splits of other arrays.
  """
  if folds == which == 0:
    return source
  _check(source, folds, which)
  parts = [source.splits[split] for split in FOLDED]
  read = [example_hashes.read(part) for part in parts]
  if read[0].shapes != read[1].shapes:
    shapes = " and ".join(str(assigned.shapes) for assigned in read)
    raise ValueError(f"--config.data.folds={folds}: train and validation differ in their arrays ({shapes}); give 0")
  inputs, whole = (np.concatenate([getattr(assigned, name) for assigned in read]) for name in ("inputs", "whole"))
  label = None if read[0].label is None else np.concatenate([assigned.label for assigned in read])
  assigned = _deal(inputs, label, folds)
  rows = {"train": np.flatnonzero(assigned != which), "validation": np.flatnonzero(assigned == which)}
  sizes = {"test": len(source.splits["test"])} | {split: len(rows[split]) for split in FOLDED}
  metadata = _metadata(source.metadata, {split: label[rows[split]] for split in FOLDED} if label is not None else {})
  metadata |= {"sizes": {split: sizes[split] for split in SPLITS}, "fold": {"folds": folds, "fold": which}}
  digests = dict(source.digests) | {split: digest({"examples": whole[rows[split]]}) for split in FOLDED}
  splits = dict(source.splits) | {split: View(parts, rows[split]) for split in FOLDED}
  return dataclasses.replace(source, splits=splits, digests=digests, metadata=metadata)


def _check(source: Dataset, folds: int, which: int) -> None:
  if folds < 2:
    raise ValueError(f"--config.data.folds={folds} with --config.data.fold={which}; give 2 or more folds, or 0 and 0")
  if not 0 <= which < folds:
    raise ValueError(f"--config.data.fold={which} is no part of --config.data.folds={folds}; give 0 to {folds - 1}")
  if any(hasattr(source.splits[split], "split") for split in FOLDED):
    raise ValueError("a split that is bucketed or augmented cannot be folded; fold the source first, then wrap it")


def _deal(inputs: np.ndarray, label: np.ndarray | None, folds: int) -> np.ndarray:
  """The part of each example."""
  unique, inverse = np.unique(inputs, return_inverse=True)
  if len(unique) < folds:
    few = f"more than the {len(unique)} different examples of {JOINED}"
    raise ValueError(f"--config.data.folds={folds} is {few}; give 2 to {len(unique)}")
  part = np.empty(len(unique), np.int64)
  lowest = np.zeros(len(unique), np.int64)
  if label is not None:
    lowest = np.full(len(unique), label.max())
    np.minimum.at(lowest, inverse, label)
  order = np.argsort(lowest, kind="stable")
  part[order] = np.arange(len(unique)) % folds
  return part[inverse]


def _metadata(metadata: Mapping[str, Any], labels: Mapping[str, np.ndarray]) -> dict[str, Any]:
  """The metadata after folding: entries by split are joined if numbers, else dropped; label counts are made anew."""
  changed = dict(metadata)
  for name, value in metadata.items():
    if not isinstance(value, Mapping) or not any(split in value for split in FOLDED):
      continue
    changed[name] = {split: entry for split, entry in value.items() if split not in FOLDED}
    numbers = [value[split] for split in FOLDED if isinstance(value.get(split), int | float)]
    if len(numbers) == len(FOLDED):
      changed[name] = {JOINED: sum(numbers)} | changed[name]
    if name == "counts" and labels:
      changed[name] = {split: _counts(value[split], labels[split]) for split in FOLDED} | changed[name]
  return changed


def _counts(before: Any, label: np.ndarray) -> Any:
  """Labels counted in the form they were counted in: a list by class, or a mapping of names in order of class."""
  counts = np.bincount(label, minlength=len(before)).tolist()
  return dict(zip(before, counts, strict=True)) if isinstance(before, Mapping) else counts
