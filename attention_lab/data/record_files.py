"""The record files of one split of a dataset that TFDS has prepared: read by index, and named where they are broken."""

from collections.abc import Sequence
from typing import Any

import numpy as np

NAME = "--config.data.name"
UNREADABLE = (OSError, RuntimeError, IndexError, ValueError)  # what array_record and TFDS's decoders raise


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


def check_shard(name: str, shard: Any) -> None:
  """A file that was cut short may still be read as so many empty examples; its own count tells."""
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
  said = " ".join(str(reason).split()) or "its index cannot be read"
  return ValueError(f"{NAME}={name}: {file} is missing or corrupt ({said}); prepare the dataset again")
