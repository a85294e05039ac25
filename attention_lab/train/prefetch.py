"""Training batches, made and sent to the devices by a background thread while the step before them runs."""

import collections
import concurrent.futures
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from attention_lab import mesh as meshes
from attention_lab.data import pipeline
from attention_lab.data.dataset import Split

AHEAD = 2  # batches


class Feed:
  """`next(feed)` is (batch on the devices, positions of the data after it); for several seeds their streams, stacked.

  Each seed has the stream that its single run would have. An error of the data is raised by `next`.
  """

  def __init__(
    self,
    split: Split,
    batch: int,
    seeds: Sequence[int],
    sharding: jax.sharding.Sharding,
    positions: list[dict[str, Any]] | None = None,
  ):
    self._streams = [pipeline.train_batches(split, batch, seed) for seed in seeds]
    for stream, position in zip(self._streams, positions or [], strict=bool(positions)):
      stream.set_state(position)
    self._sharding = sharding
    self._thread = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="feed")
    self._ready = collections.deque(self._thread.submit(self._fetch) for _ in range(AHEAD))

  def __next__(self) -> tuple[dict[str, jax.Array], list[dict[str, Any]]]:
    self._ready.append(self._thread.submit(self._fetch))
    return self._ready.popleft().result()

  def __iter__(self) -> "Feed":
    return self

  def __enter__(self) -> "Feed":
    return self

  def __exit__(self, *_: Any) -> None:
    self._thread.shutdown(wait=True, cancel_futures=True)

  def _fetch(self) -> tuple[dict[str, jax.Array], list[dict[str, Any]]]:
    batches = [next(stream) for stream in self._streams]
    batch = batches[0] if len(batches) == 1 else jax.tree.map(lambda *arrays: np.stack(arrays), *batches)
    return meshes.put(batch, self._sharding), [stream.get_state() for stream in self._streams]
