"""Datasets: named splits that answer a batch of indices, with their digests, metadata and reference lines.

  text.load(data, workdir, vocabulary=512) -> Dataset          TEXTS, or the user's own text in `data.path`
  images.load(data) -> Dataset                                 IMAGES, or the user's own folder in `data.path`
  recall.generate(vocabulary, length, pairs, …) -> Dataset     RECALLS, generated

`data` is a `config.DataConfig`. Which dataset it means is decided by `validate_name`, in one place.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

from attention_lab.config import DataConfig, nearest_hint

SPLITS = ("train", "validation", "test")


@runtime_checkable
class Split(Protocol):
  """Random access by a batch of indices, so that one gather makes a whole batch."""

  def __len__(self) -> int:
    """The number of examples."""
    ...

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    """The examples at `indices`, stacked: the leading axis of every array is B."""
    ...


@runtime_checkable
class Describable(Split, Protocol):
  """A split that can show its examples to a reader."""

  def describe(self, index: int) -> str:
    """The example at `index` as readable text."""
    ...


class Arrays:
  """A split held in memory: arrays by name, whose leading axes are the examples."""

  def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1:
      raise ValueError(f"a split needs arrays with the same number of examples; these have {lengths}")
    self.arrays = dict(arrays)

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in self.arrays.items()}


class Lazy(Mapping[str, float]):
  """Numbers by name, each computed when it is first read; listing the names computes nothing."""

  def __init__(self, compute: Mapping[str, Callable[[], float]]) -> None:
    self._compute = {name: functools.cache(function) for name, function in compute.items()}

  def __getitem__(self, name: str) -> float:
    return self._compute[name]()

  def __iter__(self) -> Iterator[str]:
    return iter(self._compute)

  def __len__(self) -> int:
    return len(self._compute)


@dataclasses.dataclass(frozen=True)
class Dataset:
  """Named splits of examples, with what a task and a report must know of them."""

  name: str
  splits: Mapping[str, Split]  # by SPLITS
  digests: Mapping[str, str]  # split -> `digest` of its content, 16 hex digits
  metadata: Mapping[str, Any]  # JSON-able: vocabulary, length, classes, image, sizes, chance, …
  controls: Mapping[str, float]  # reference lines on the test split in the task's primary metric; may be Lazy


def digest(arrays: Mapping[str, np.ndarray]) -> str:
  """The first 16 hex digits of the sha256 of names, dtypes, shapes and bytes (little-endian, in order of name)."""
  state = hashlib.sha256()
  for name in sorted(arrays):
    array = np.ascontiguousarray(arrays[name])
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    state.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
    state.update(array.data)
  return state.hexdigest()[:16]


def digests(splits: Mapping[str, Arrays]) -> dict[str, str]:
  """The `digest` of each split's arrays."""
  return {split: digest(splits[split].arrays) for split in SPLITS if split in splits}


def validate_name(data: DataConfig, names: Sequence[str], *, allow_other: bool = False) -> str:
  """The name of the dataset that `data` asks for: one of `names`, or "" for the user's own in `data.path`.

  `names[0]` is the default where neither name nor path is given. Raises ValueError for both at once and for an
  unknown name (the nearest one is offered), unless `allow_other` name may be one that TFDS has prepared: then it is
  returned, and `prepared.check` tells of it.
  """
  if data.path and data.name:
    both = f"--config.data.name={data.name} and --config.data.path={data.path}"
    raise ValueError(f"{both} are two datasets; give one of them")
  if data.path:
    return ""
  if not data.name:
    return names[0]
  if data.name not in names and not allow_other:
    hint = nearest_hint(data.name, names)
    raise ValueError(f"--config.data.name={data.name} is no dataset of this task{hint}; choices: {', '.join(names)}")
  return data.name


def validate_path(path: str) -> Path:
  """The file or folder that `--config.data.path` names, ~ expanded; raises ValueError for the ~ of nobody."""
  try:
    return Path(path).expanduser()
  except RuntimeError as error:
    raise ValueError(f"--config.data.path={path} cannot be read ({error}); give the whole path") from None
