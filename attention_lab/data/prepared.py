"""Datasets that TFDS has prepared as array_record: reading needs neither TensorFlow nor a network.

  features("glue/sst2", DIR)                    {"idx": "tensor", "label": "label", "sentence": "text"}
  open_split("glue/sst2", "train", DIR)         random access to its examples, in stored order
  columns("glue/sst2", "train", DIR, ["label", "sentence"])     whole columns

A name is TFDS's own, `dataset[/config][:version]`, and DIR is `--config.data.dir` ("" = TFDS's, ~/tensorflow_datasets).
They are found by their files as `tfds.data_source` finds them, but nothing is ever downloaded in passing:
`python -m attention_lab.data.builders` prepares what is missing.
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from attention_lab.config import nearest_hint

NAME, DIR = "--config.data.name", "--config.data.dir"
UNREADABLE = (OSError, RuntimeError, IndexError, ValueError)  # raised by array_record and by the decoders of TFDS
BATCH = 1024  # examples read at once
PATIENCE = 3.0  # seconds between lines of progress
_KINDS = {"Image": "image", "ClassLabel": "label", "Text": "text"}
_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d.*]+)?")
T = TypeVar("T")


class _Absent(ValueError):
  """The error of a dataset that is not prepared."""


class Records:
  """The examples of one split, read when asked for; images stay encoded, as bytes."""

  def __init__(self, name: str, split: str, source: Any, shards: Sequence[Any]) -> None:
    self._name, self._split, self._source, self._shards = name, split, source, shards

  def __len__(self) -> int:
    return len(self._source)

  def __getitem__(self, index: int) -> dict[str, Any]:
    return self.__getitems__([index])[0]

  def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
    """Many examples at once, which is faster; raises ValueError, naming the file, where it cannot be read."""
    try:
      return self._source.__getitems__(list(indices))
    except UNREADABLE as error:
      outside = [index for index in indices if not 0 <= index < len(self)]
      if outside:
        raise IndexError(f"{self._name} {self._split} has {len(self)} examples, none of number {outside[0]}") from None
      raise _corrupt(self._name, self._broken(indices), error) from None

  def _broken(self, indices: Sequence[int]) -> str:
    """The file of the first example that cannot be read."""
    ends = np.cumsum([shard.take for shard in self._shards])
    for index in indices:
      try:
        self._source.__getitems__([index])
      except UNREADABLE:
        return str(self._shards[int(np.searchsorted(ends, index, side="right"))].filename)
    return " or ".join(sorted({str(shard.filename) for shard in self._shards}))


def _check_shard(name: str, shard: Any) -> None:
  """Raises ValueError for a file that is unreadable or cut short, told by its own count of examples."""
  from array_record.python import array_record_module

  try:
    reader = array_record_module.ArrayRecordReader(str(shard.filename), options="readahead_buffer_size:0")
    held = reader.num_records()
    reader.close()
  except UNREADABLE as error:
    raise _corrupt(name, shard.filename, error) from None
  if held != shard.examples_in_shard:
    raise _corrupt(name, shard.filename, f"it holds {held} examples, not {shard.examples_in_shard}")


def _corrupt(name: str, file: Any, reason: Any) -> ValueError:
  message = " ".join(str(reason).split()) or "its index cannot be read"
  return ValueError(f"{NAME}={name}: {file} is missing or corrupt ({message}); prepare the dataset again")


def open_split(name: str, split: str, directory: str) -> Records:
  """The examples of a split (`train`, or a part as TFDS writes it: `train[:10%]`).

  Raises ValueError, naming the flag, for a dataset that is not prepared there or not as array_record, for a split that
  it does not have; and, when examples are read, for a record file that is missing or corrupt.
  """
  import tensorflow_datasets as tfds

  builder = _builder(name, directory)
  if split.partition("[")[0] not in builder.info.splits:
    known = ", ".join(builder.info.splits) or "none"
    raise ValueError(f"{NAME}={name} has no split {split}; it has {known}")
  raw = {feature: tfds.decode.SkipDecoding() for feature, kind in _kinds(builder).items() if kind == "image"}
  try:
    source = builder.as_data_source(split, decoders=raw)
    shards = builder.info.splits[split].file_instructions
  except NotImplementedError:
    form = builder.info.file_format.value
    fix = "prepare it again with file_format=array_record"
    raise ValueError(
      f"{NAME}={name} is prepared as {form} in {builder.data_dir}, without random access; {fix}"
    ) from None
  except UNREADABLE as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{NAME}={name}: split {split} in {builder.data_dir} cannot be opened ({reason})") from None
  if builder.info.file_format.value == "array_record":
    for shard in shards:
      _check_shard(name, shard)
  return Records(name, split, source, shards)


def check(name: str, directory: str, others: Sequence[str] = ()) -> None:
  """Raises ValueError for a dataset that is not prepared; `others` are names that a misspelt one may have meant too."""
  try:
    _builder(name, directory)
  except _Absent:
    raise ValueError(_absence(name, directory, others)) from None


def splits(name: str, directory: str) -> dict[str, int]:
  """Examples by split; raises ValueError as `open_split` does."""
  return {split: info.num_examples for split, info in _builder(name, directory).info.splits.items()}


def features(name: str, directory: str) -> dict[str, str]:
  """Kinds by feature: image, label (a ClassLabel), text, else TFDS's class in lower case (tensor, sequence, …)."""
  return _kinds(_builder(name, directory))


def only(name: str, directory: str, kind: str) -> str:
  """The one feature of that kind; raises ValueError for a dataset with none or several."""
  kinds = features(name, directory)
  matching = [feature for feature, other in kinds.items() if other == kind]
  if len(matching) != 1:
    listed = ", ".join(f"{feature} ({other})" for feature, other in kinds.items())
    raise ValueError(f"{NAME}={name} has {len(matching)} features of kind {kind}, not one; it has {listed}")
  return matching[0]


def class_names(name: str, directory: str, feature: str) -> list[str]:
  """The classes of a feature of kind `label`, in order of their numbers; digits where TFDS knows no names."""
  label = _builder(name, directory).info.features[feature]
  return [str(text) for text in label.names] if label.num_classes else []


def image_shape(name: str, directory: str, feature: str) -> tuple[int, int, int]:
  """Height, width and channels of a feature of kind `image`, as it was declared; 0 where they differ between images."""
  height, width, channels = _builder(name, directory).info.features[feature].shape
  return height or 0, width or 0, channels or 0


def columns(
  name: str, split: str, directory: str, names: Sequence[str], log: Callable[[str], None] | None = None
) -> dict[str, Any]:
  """Whole columns: texts as list[str], numbers as an array, images as list[bytes] (encoded), anything else as a list.

  `log` is given a line every PATIENCE seconds (default: standard error). Raises ValueError as `open_split` does, and
  for a feature that the dataset does not have.
  """
  kinds = features(name, directory)
  for feature in names:
    if feature not in kinds:
      hint = nearest_hint(feature, kinds)
      raise ValueError(f"{NAME}={name} has no feature {feature}{hint}; it has {', '.join(kinds)}")
  records = open_split(name, split, directory)
  read: dict[str, list] = {feature: [] for feature in names}
  starts = range(0, len(records), BATCH)
  for start in with_progress(starts, f"{name} {split}: read", len(starts), log):
    for number, example in enumerate(records.__getitems__(range(start, min(start + BATCH, len(records)))), start):
      for feature, column in read.items():
        try:
          column.append(example[feature] if kinds[feature] == "image" else _plain(example[feature]))
        except UnicodeDecodeError as error:
          raise ValueError(f"{NAME}={name}: {feature} of example {number} of {split} is no text ({error})") from None
  return {feature: _column(values) for feature, values in read.items()}


def with_progress(
  items: Iterator[T] | Sequence[T], what: str, total: int, log: Callable[[str], None] | None
) -> Iterator[T]:
  """The items, with a line such as `read 40 %` every PATIENCE seconds."""
  reported = time.monotonic()
  for number, item in enumerate(items):
    if time.monotonic() - reported > PATIENCE:
      reported = time.monotonic()
      (log or _say)(f"{what} {100 * number // total} %")
    yield item


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _plain(value: Any) -> Any:
  """A value with bytes turned into text, in nested containers too."""
  if isinstance(value, bytes):
    return value.decode("utf-8")
  if isinstance(value, Mapping):
    return {key: _plain(part) for key, part in value.items()}
  if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
    return [_plain(part) for part in value]
  return value.item() if isinstance(value, np.generic) else value


def _column(values: list) -> Any:
  return np.array(values) if values and isinstance(values[0], int | float) else values


def _kinds(builder: Any) -> dict[str, str]:
  names = {feature: type(connector).__name__ for feature, connector in builder.info.features.items()}
  return {feature: _KINDS.get(kind, kind.lower()) for feature, kind in sorted(names.items())}


def _builder(name: str, directory: str) -> Any:
  """TFDS's builder of a prepared dataset, made from its files alone: the newest version there."""
  from google.protobuf import json_format
  from tensorflow_datasets.core import read_only_builder, registered

  logging.getLogger("absl").addFilter(_is_worth_reading)
  if not _NAME.fullmatch(name):
    raise ValueError(f"{NAME}={name} names no dataset; write dataset, dataset/config or dataset:1.0.0")
  try:
    return read_only_builder.builder_from_files(name, data_dir=str(Path(directory).expanduser()) if directory else None)
  except registered.DatasetNotFoundError:
    raise _Absent(_absence(name, directory, ())) from None
  except (OSError, KeyError, ValueError, json_format.Error) as error:
    reason = " ".join(str(error).split())
    raise ValueError(f"{NAME}={name} in {DIR}={directory} cannot be read ({reason}); prepare it again") from None


def _is_worth_reading(record: logging.LogRecord) -> bool:
  """The log filter that drops TFDS's line for every metadata file that it reads."""
  return record.levelno >= logging.WARNING or "tensorflow_datasets" not in record.pathname


def _absence(name: str, directory: str, others: Sequence[str]) -> str:
  """The message, with its fix, for a dataset that is not prepared."""
  from tensorflow_datasets.core import constants

  root = Path(directory or constants.DATA_DIR).expanduser()
  there = listed(root)
  choices = f"{', '.join(there)} {'are' if len(there) > 1 else 'is'} there" if there else "nothing is there"
  command = f"python -m attention_lab.data.builders --name={name} --dir={directory or root}"
  hint = nearest_hint(name, [*there, *others])
  return f"{NAME}={name} is not prepared in {root}{hint} ({choices}); give its folder in {DIR}, or make it: {command}"


def listed(root: Path) -> list[str]:
  """Names of the datasets that are prepared in a folder: `dataset`, or `dataset/config`."""
  files = (*root.glob("*/*/features.json"), *root.glob("*/*/*/features.json"))
  return sorted({file.parent.parent.relative_to(root).as_posix() for file in files})
