"""Documents packed whole into rows of one width, so that little of a batch is padding.

A row of a packed batch is

  tokens int32 [room]       documents one after another, then 0
  segments int32 [room]     1 on the first document of the row, 2 on the second, …; 0 on the padding

Longest first, each into the first row that has room: first-fit decreasing, at most 11/9 of the fewest rows possible
plus 6/9 (Dósa 2007, "The tight bound of first fit decreasing bin-packing algorithm"). Where a document stands depends
on the lengths alone: arrays parallel to the documents, packed by a second call, land in the same places.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def pack(
  documents: Sequence[Int[np.ndarray, "_"]], room: int, overlap: int = 0
) -> tuple[Int[np.ndarray, "N room"], Int[np.ndarray, "N room"]]:
  """Tokens and segments, int32 [N, room]; an empty document takes no place.

  A document longer than `room` is cut into pieces, each a segment of its own that begins with the last `overlap`
  tokens of the piece before it. For next-token targets `overlap` is 1: then every token but the first of its document
  is a target exactly once; with 0 the first token of a piece is none. Raises ValueError for no room.
  """
  if not 0 <= overlap < room:
    raise ValueError(f"a row of room={room} holds no piece with overlap={overlap}; give 0 <= overlap < room")
  parts = [part for document in documents for part in _cut(document, room, overlap)]
  lengths = np.array([len(part) for part in parts], np.int64)
  order = np.argsort(-lengths, kind="stable")
  rows, starts, segments = _first_fit(lengths[order], room)
  packed = np.zeros((2, int(rows.max(initial=-1)) + 1, room), np.int32)
  if parts:
    sizes = lengths[order]
    within = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    targets = np.repeat(rows * room + starts, sizes) + within
    packed[0].reshape(-1)[targets] = np.concatenate([parts[index] for index in order])
    packed[1].reshape(-1)[targets] = np.repeat(segments, sizes)
  return packed[0], packed[1]


def _cut(document: np.ndarray, room: int, overlap: int) -> list[np.ndarray]:
  if len(document) <= room:
    return [document] if len(document) else []
  return [document[start : start + room] for start in range(0, len(document) - overlap, room - overlap)]


def _first_fit(lengths: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Row, first place and segment of each length, by a tree whose nodes hold the most room that any row below has."""
  leaves = 1 << max(len(lengths) - 1, 0).bit_length()
  tree = [room] * (2 * leaves)
  filled = [0] * leaves
  rows, starts, segments = (np.zeros(len(lengths), np.int64) for _ in range(3))
  for index, length in enumerate(lengths.tolist()):
    node = 1
    while node < leaves:
      node = 2 * node if tree[2 * node] >= length else 2 * node + 1
    row = node - leaves
    rows[index], starts[index], segments[index] = row, room - tree[node], filled[row] + 1
    filled[row] += 1
    tree[node] -= length
    while node > 1:
      node //= 2
      tree[node] = max(tree[2 * node], tree[2 * node + 1])
  return rows, starts, segments
