"""Batches of a split: an endless shuffled stream for training, one pass in order for evaluation.

Training batch number s is a pure function of (split, batch, seed, s): the stream is epoch after epoch, each in its own
order, cut every `batch` examples, so that no example is dropped where one epoch ends inside a batch. The position is
one number, `{"next_index": s}`, and every process of a run computes the same global batch.

Grain's own `shuffle().batch()` visits examples one by one in Python (0.6 ms for a batch of 64); a source whose records
are whole batches of indices costs a thirtieth of that.
"""

import functools
import sys
from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np

from attention_lab.data.source import Split


@runtime_checkable
class Batches(Protocol):
  """An endless iterator whose position can be saved: what `train_batches` uses of a `grain.DatasetIterator`."""

  def __next__(self) -> dict[str, np.ndarray]:
    """The next batch."""
    ...

  def get_state(self) -> dict[str, Any]:
    """The position, a small JSON-able dict."""
    ...

  def set_state(self, state: dict[str, Any]) -> None:
    """Goes on from a saved position."""
    ...


def train_batches(split: Split, batch: int, seed: int) -> Batches:
  """An endless iterator over batches of `batch` examples, reshuffled each epoch.

  `get_state()` is a small JSON-able dict, `set_state` goes on from one, bit for bit. Raises ValueError for an empty
  split, a batch < 1 or a seed < 0.
  """
  import grain

  _check(split, batch)
  if seed < 0:
    raise ValueError(f"--config.seed={seed} is negative; give 0 or more")
  source = grain.MapDataset.source(_ShuffledBatches(split, batch, seed))
  return iter(source.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def evaluation_batches(split: Split, batch: int) -> Iterator[dict[str, np.ndarray]]:
  """Every example once, in order, in batches of exactly `batch`.

  Each batch has a float32 `weight` [B]: 1 on examples, 0 on the padding of the last one, which repeats example 0.
  Raises ValueError for an empty split or a batch < 1.
  """
  _check(split, batch)
  return (_evaluation_batch(split, batch, start) for start in range(0, len(split), batch))


def _evaluation_batch(split: Split, batch: int, start: int) -> dict[str, np.ndarray]:
  positions = np.arange(start, start + batch)
  real = positions < len(split)
  return split[np.where(real, positions, 0)] | {"weight": real.astype(np.float32)}


def _check(split: Split, batch: int) -> None:
  if batch < 1:
    raise ValueError(f"--config.batch={batch} is less than 1; give the examples per step")
  if not len(split):
    raise ValueError("the split is empty; it needs at least one example")


class _ShuffledBatches:
  """Batch number s of the endless stream, as a Grain random-access source."""

  def __init__(self, split: Split, batch: int, seed: int) -> None:
    self._split, self._batch, self._seed = split, batch, seed
    self._order = functools.lru_cache(maxsize=2)(self._permutation)

  def __len__(self) -> int:
    return sys.maxsize // self._batch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    size = len(self._split)
    epochs, offsets = np.divmod(np.arange(step * self._batch, (step + 1) * self._batch), size)
    parts = [self._order(epoch)[offsets[epochs == epoch]] for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)]
    return self._split[parts[0] if len(parts) == 1 else np.concatenate(parts)]

  def _permutation(self, epoch: int) -> np.ndarray:
    return np.random.default_rng((self._seed, epoch)).permutation(len(self._split))
