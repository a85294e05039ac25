"""Hashes of the contents of every example, from which equal examples are found, in one split or in two.

The inputs of an example are all arrays of its batch but those of ASIDE, as the model reads them: truncated, padded.
A hash has 64 bits of BLAKE2b, so that among a million examples two different ones agree with probability 3e-8.
"""

import dataclasses
import hashlib

import numpy as np
from jaxtyping import Int, UInt64

from attention_lab.data.dataset import Split

ANSWERS = frozenset({"label", "targets", "next", "start", "end", "masked", "chosen"})
ASIDE = ANSWERS | {"mask", "bytes", "words", "group", "example"}  # answers, and what only counts them
_ROWS = 1024  # examples gathered at a time


@dataclasses.dataclass(frozen=True)
class Contents:
  """The hashes, labels and lengths of N examples."""

  inputs: UInt64[np.ndarray, "N"]  # hashes of the inputs
  whole: UInt64[np.ndarray, "N"]  # hashes of all arrays
  label: Int[np.ndarray, "N"] | None  # None where examples have no single label
  length: Int[np.ndarray, "N"] | None  # tokens; None for images
  shapes: dict[str, tuple[int, ...]]  # array -> its shape in one example


def read(split: Split) -> Contents:
  """The contents of a split, read once; of one that wraps another (`Bucketed`, `Augmented`) the inner contents."""
  while hasattr(split, "split"):
    split = split.split
  starts = range(0, len(split), _ROWS)
  chunks = [split[np.arange(start, min(start + _ROWS, len(split)))] for start in starts] or [split[np.arange(0)]]
  first = chunks[0]
  inputs = sorted(first.keys() - ASIDE)
  labelled = "label" in first and first["label"].ndim == 1
  return Contents(
    inputs=np.concatenate([_hashes(chunk, inputs) for chunk in chunks]),
    whole=np.concatenate([_hashes(chunk, sorted(chunk)) for chunk in chunks]),
    label=np.concatenate([chunk["label"] for chunk in chunks]) if labelled else None,
    length=None if "tokens" not in first else np.concatenate([_lengths(chunk) for chunk in chunks]),
    shapes={name: array.shape[1:] for name, array in first.items()},
  )


def _hashes(batch: dict[str, np.ndarray], names: list[str]) -> np.ndarray:
  count = len(batch[names[0]])
  flat = [np.ascontiguousarray(batch[name]).reshape(count, -1).view(np.uint8) for name in names]
  rows = np.concatenate(flat, axis=1)
  joined = b"".join(hashlib.blake2b(row, digest_size=8).digest() for row in rows)
  return np.frombuffer(joined, "<u8").astype(np.uint64)


def _lengths(batch: dict[str, np.ndarray]) -> np.ndarray:
  """Tokens of each example: `length`, else those of a segment, else the targets that count, else all."""
  tokens = batch["tokens"]
  if "length" in batch:
    return batch["length"]
  if "segments" in batch:
    return (batch["segments"] > 0).sum(axis=1)
  if "mask" in batch:
    return (batch["mask"] > 0).sum(axis=1)
  return np.full(len(tokens), tokens.shape[1])
