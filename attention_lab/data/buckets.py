"""Examples of similar length together, so that a batch is as wide as its examples need and shapes are few.

`Bucketed` groups the examples of a split by the smallest of a few widths that holds their length. `pipeline` takes
every batch of such a split from one group, so that a program is compiled once for each width and for no batch again.
Cross-validation comes first: `fold` the dataset, then bucket the splits it returns.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from attention_lab.data.dataset import Split


class Bucketed:
  """A split whose examples are grouped by width; `buckets` is what `pipeline` reads.

  The arrays named in `cut` lose what lies beyond the width, [:, :width], when a batch is gathered: a batch of one
  bucket is as wide as that bucket, a mixed one as the widest bucket it touches.
  """

  split: Split  # the split that is grouped
  widths: tuple[int, ...]  # ascending, of the buckets that hold examples
  buckets: tuple[np.ndarray, ...]  # the indices of the examples of each width, ascending
  describe: Callable[[int], str]  # an example as readable text, where the grouped split has it

  def __init__(self, split: Split, lengths: Int[np.ndarray, "N"], widths: Sequence[int], cut: Sequence[str]) -> None:
    """Groups a split.

    Args:
      split: the examples.
      lengths: the positions of each example that a batch must keep.
      widths: the widths of batches, in any order.
      cut: names of the arrays that are cut to the width.

    Raises:
      ValueError: lengths not as many as examples, a length that no width holds, a name in `cut` that the split lacks.
    """
    allowed = np.unique(np.asarray(widths, np.int64))
    if len(lengths) != len(split):
      raise ValueError(f"{len(lengths)} lengths for {len(split)} examples; give each example its own")
    if len(lengths) and lengths.max() > allowed[-1]:
      raise ValueError(f"an example of length {lengths.max()} fits no width of {allowed.tolist()}; give a wider one")
    self.split, self._cut = split, tuple(cut)
    self._width = allowed[np.searchsorted(allowed, lengths)]
    self.widths = tuple(np.unique(self._width).tolist())
    self.buckets = tuple(np.flatnonzero(self._width == width) for width in self.widths)
    missing = sorted({*cut} - split[np.arange(min(len(split), 1))].keys())
    if missing:
      raise ValueError(f"the split has no array {missing[0]} to cut; name arrays of its batches")
    if hasattr(split, "describe"):
      self.describe = split.describe

  def __len__(self) -> int:
    return len(self.split)

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    batch = self.split[indices]
    width = int(self._width[indices].max(initial=0))
    return batch | {name: batch[name][:, :width] for name in self._cut}


def widths(length: int, least: int = 32) -> tuple[int, ...]:
  """The powers of two times `least` below `length`, then `length`: log₂(length / least) compilations and one."""
  below = [least]
  while below[-1] < length:
    below.append(2 * below[-1])
  return (*below[:-1], length)


def turns(sizes: Sequence[int]) -> Callable[[int], tuple[int, int]]:
  """The order in which buckets of `sizes` n_b make batches: step s -> the bucket, and how many turns it had before.

  The k-th turn of bucket b is due at (k + ½) / n_b; steps are the turns of all in the order in which they are due, the
  wider bucket later where two are due at once. Of the first s steps bucket b has s·n_b/N to within
  ½ + ½·m·n_b/N, for m buckets of N examples, and of every N steps exactly n_b.
  """
  counts = np.asarray(sizes, np.int64) // np.gcd.reduce(sizes)
  bucket = np.repeat(np.arange(len(counts)), counts)
  turn = np.concatenate([np.arange(count) for count in counts])
  order = np.argsort((turn + 0.5) / counts[bucket], kind="stable")
  bucket, turn = bucket[order], turn[order]

  def at(step: int) -> tuple[int, int]:
    rounds, position = divmod(step, len(order))
    index = int(bucket[position])
    return index, rounds * int(counts[index]) + int(turn[position])

  return at
