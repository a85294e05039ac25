"""Rows of two texts from documents, by the procedure of BERT that `masked` describes."""

import bisect
import dataclasses
from collections.abc import Iterator, Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from attention_lab.data.tokenizer import Tokenizer

FRAME = 3  # special tokens of a row: class and two separators
SHORTEST = FRAME + 2  # tokens of the shortest row, with one of each text
SHORT = 0.1  # fraction of the documents that aim at a random length
ENDS = (".", "!", "?")  # last characters of a token that ends a sentence


@dataclasses.dataclass(frozen=True)
class Document:
  """A text of at least one token, with the bounds of its sentences."""

  tokens: Int[np.ndarray, "N"]
  bounds: list[int]  # 0, …, N


class Run(NamedTuple):
  """A stretch of a document, its tokens start … stop − 1."""

  document: int
  start: int
  stop: int


def documents(texts: Sequence[str], tokenizer: Tokenizer) -> list[Document]:
  """The texts that have a token, cut into sentences: the last of one or more tokens that end with ENDS is its last."""
  ends = np.array([tokenizer.decode(np.array([i])).rstrip().endswith(ENDS) for i in range(tokenizer.vocabulary)])
  result = []
  for tokens in tokenizer.encode_batch(texts):
    if len(tokens):
      last = ends[tokens]
      last[:-1] &= ~last[1:]
      last[-1] = True
      result.append(Document(tokens, [0, *(np.flatnonzero(last) + 1).tolist()]))
  return result


def make(documents: Sequence[Document], length: int, frame: tuple[int, int], random: Random) -> dict[str, np.ndarray]:
  """The arrays `tokens`, `types`, `length` and `next` of all pairs; frame: the ids of class and separator.

  Needs two documents or more, and a length of SHORTEST or more.
  """
  rows = [row for number in range(len(documents)) for row in _rows(documents, number, length - FRAME, random)]
  tokens = np.zeros((len(rows), length), np.int32)
  types, sizes = np.zeros_like(tokens), np.zeros((len(rows), 2), np.int32)
  for n, (first, second, _) in enumerate(rows):
    a, b = first.stop - first.start, second.stop - second.start
    tokens[n, 0], tokens[n, a + 1], tokens[n, a + b + 2] = frame[0], frame[1], frame[1]
    tokens[n, 1 : a + 1] = documents[first.document].tokens[first.start : first.stop]
    tokens[n, a + 2 : a + b + 2] = documents[second.document].tokens[second.start : second.stop]
    types[n, a + 2 : a + b + 3] = 1
    sizes[n] = a, b
  follows = np.array([row[2] for row in rows], np.int32)
  return {"tokens": tokens, "types": types, "length": sizes.sum(axis=1, dtype=np.int32) + FRAME, "next": follows}


def _rows(documents: Sequence[Document], number: int, room: int, random: Random) -> Iterator[tuple[Run, Run, bool]]:
  """The pairs whose first text is this document's, and whether the second follows it."""
  bounds, first = documents[number].bounds, 0
  aim = _between(2, room, random) if random.random() < SHORT else room
  while first < len(bounds) - 1:
    last = _filled(bounds, first, aim)
    middle = _between(first + 1, last - 1, random) if last - first > 1 else last
    text = Run(number, bounds[first], bounds[middle])
    follows = middle < last and random.random() >= 0.5
    if follows:
      second, first = Run(number, bounds[middle], bounds[last]), last
    else:
      second, first = _other(documents, number, aim - (text.stop - text.start), random), middle
    yield *_cut(text, second, room, random), follows


def _filled(bounds: list[int], first: int, size: int) -> int:
  """The bound at which the fewest sentences from `first` on, at least one, have `size` tokens; or the last bound."""
  return min(bisect.bisect_left(bounds, bounds[first] + size, first + 1), len(bounds) - 1)


def _other(documents: Sequence[Document], number: int, size: int, random: Random) -> Run:
  """Sentences of another document, from a random one on."""
  other = _between(0, len(documents) - 2, random)
  other += other >= number
  bounds = documents[other].bounds
  first = _between(0, len(bounds) - 2, random)
  return Run(other, bounds[first], bounds[_filled(bounds, first, size)])


def _cut(first: Run, second: Run, room: int, random: Random) -> tuple[Run, Run]:
  """Both texts shortened until they fit, as if token by token from the longer, at a random end of it."""
  a, b = first.stop - first.start, second.stop - second.start
  if a + b <= room:
    return first, second
  remaining = min(b, room // 2) if b <= a else room - min(a, room - room // 2)
  return _shortened(first, room - remaining, random), _shortened(second, remaining, random)


def _shortened(run: Run, size: int, random: Random) -> Run:
  start = run.start + random.getrandbits(run.stop - run.start - size).bit_count()
  return Run(run.document, start, start + size)


def _between(low: int, high: int, random: Random) -> int:
  """A random integer in low … high, drawn by `random()` alone, which is alike in every version of Python."""
  return low + int(random.random() * (high - low + 1))
