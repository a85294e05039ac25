"""Batches of a split: an endless shuffled stream for training, one pass in order for evaluation.

Training batch number s is a pure function of (split, batch, seed, s): the stream is epoch after epoch, each in its own
order, cut every `batch` examples, so that no example is dropped where one epoch ends inside a batch. The position is
one number, `{"next_index": s}`, and every process of a run computes the same global batch.

A split with `buckets` (groups of indices, see `buckets.Bucketed`) has one such stream for each, and every batch comes
from one of them: which, depends on step s and the sizes n_b of the buckets alone (`buckets.turns`), so that the batches
of several seeds have one shape at each step. Bucket b has s·n_b/N of the first s steps, to within a bound that does not
grow, and after every N steps each example has been visited exactly `batch` times.

A split with `augmented(indices, seed, step)` is asked for its training batches by that, see `augment.Augmented`.

Grain's own `shuffle().batch()` visits examples one by one in Python (0.6 ms for a batch of 64); a source whose records
are whole batches of indices costs a thirtieth of that.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from attention_lab.data.buckets import turns
from attention_lab.data.dataset import Split


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


@runtime_checkable
class Augmentable(Protocol):
  """A split whose training batches are drawn anew at each step."""

  def augmented(self, indices: np.ndarray, seed: int, step: int) -> dict[str, np.ndarray]:
    """The examples at `indices`, stacked, as the run of `seed` sees them at `step`."""
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
  """Every example once, in order, bucket by bucket where the split has buckets, in batches of exactly `batch`.

  Each batch has an int32 `index` [B], the examples' places in the split, and a float32 `weight` [B]: 1 on examples, 0
  on the padding of the last batch (of a bucket), which repeats its first example. Raises ValueError for an empty split
  or a batch < 1.
  """
  _check(split, batch)
  starts = ((members, start) for members in _buckets(split) for start in range(0, len(members), batch))
  return (_evaluation_batch(split, members, start, batch) for members, start in starts)


def _evaluation_batch(split: Split, members: np.ndarray, start: int, batch: int) -> dict[str, np.ndarray]:
  places = np.arange(start, start + batch)
  real = places < len(members)
  index = members[np.where(real, places, 0)]
  return split[index] | {"index": index.astype(np.int32), "weight": real.astype(np.float32)}


def _buckets(split: Split) -> Sequence[np.ndarray]:
  return getattr(split, "buckets", None) or (np.arange(len(split)),)


def _check(split: Split, batch: int) -> None:
  if batch < 1:
    raise ValueError(f"--config.batch={batch} is less than 1; give the examples per step")
  if not len(split):
    raise ValueError("the split is empty; it needs at least one example")


class _ShuffledBatches:
  """Batch number s of the endless stream, as a Grain random-access source."""

  def __init__(self, split: Split, batch: int, seed: int) -> None:
    self._split, self._batch, self._seed = split, batch, seed
    buckets = _buckets(split)
    self._streams = [_Stream(members, batch, seed, number) for number, members in enumerate(buckets)]
    self._turns = turns([len(members) for members in buckets])

  def __len__(self) -> int:
    return sys.maxsize // self._batch

  def __getitem__(self, step: int) -> dict[str, np.ndarray]:
    bucket, turn = self._turns(step)
    indices = self._streams[bucket](turn)
    if isinstance(self._split, Augmentable):
      return self._split.augmented(indices, self._seed, step)
    return self._split[indices]


class _Stream:
  """The endless shuffled stream of one bucket's examples, `batch` indices a turn."""

  def __init__(self, members: np.ndarray, batch: int, seed: int, bucket: int) -> None:
    self._members, self._batch, self._seed, self._bucket = members, batch, seed, bucket
    self._order = functools.lru_cache(maxsize=2)(self._permutation)

  def __call__(self, turn: int) -> np.ndarray:
    places = np.arange(turn * self._batch, (turn + 1) * self._batch)
    epochs, offsets = np.divmod(places, len(self._members))
    parts = [self._order(epoch)[offsets[epochs == epoch]] for epoch in range(int(epochs[0]), int(epochs[-1]) + 1)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)

  def _permutation(self, epoch: int) -> np.ndarray:
    key = (self._seed, epoch, self._bucket) if self._bucket else (self._seed, epoch)
    return self._members[np.random.default_rng(key).permutation(len(self._members))]
