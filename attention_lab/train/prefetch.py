"""Training batches that are made ahead of the step."""

import collections
import concurrent.futures
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Sharding

from attention_lab import mesh as meshes
from attention_lab.data import pipeline
from attention_lab.data.dataset import Split
from attention_lab.train.checkpoint import DataPositions
from attention_lab.train.step import Batch

PREFETCHED = 2  # batches that are made ahead of the step


class Prefetcher:
  """Training batches, made and sent to the devices by a background thread while the step before them runs.

  `next` is (batch on the devices, positions of the data after it). Each seed has the stream that its single run would
  have; several are stacked. An error of the data is raised by `next`.
  """

  def __init__(
    self, split: Split, batch: int, seeds: Sequence[int], sharding: Sharding, positions: DataPositions | None = None
  ):
    self._streams = [pipeline.train_batches(split, batch, seed) for seed in seeds]
    for stream, position in zip(self._streams, positions or [], strict=bool(positions)):
      stream.set_state(position)
    self._sharding = sharding
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="prefetch")
    self._ready = collections.deque(self._thread.submit(self._fetch) for _ in range(PREFETCHED))

  def __next__(self) -> tuple[Batch, DataPositions]:
    self._ready.append(self._thread.submit(self._fetch))
    return self._ready.popleft().result()

  def __enter__(self) -> "Prefetcher":
    return self

  def __exit__(self, *_: object) -> None:
    self._thread.shutdown(wait=True, cancel_futures=True)

  def _fetch(self) -> tuple[Batch, DataPositions]:
    batches = [next(stream) for stream in self._streams]
    batch = batches[0] if len(batches) == 1 else jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
    return meshes.put(batch, self._sharding), [stream.get_state() for stream in self._streams]
