"""Seeded random calls: masks, positions and biases out of what a variant claims to honour."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.certify.under_test import Shape, VariantUnderTest, at_positions

Generator = np.random.Generator


def call(subject: VariantUnderTest, shape: Shape, names: Iterable[str], seed: int, *, positions: bool = False) -> Call:
  """A call with those of the demands `names` that the variant claims to honour, random values in all of them.

  Each array is neutral (all True, one segment, prefix 0) in a third of the draws: one program serves many masks.

  Args:
    subject: the variant under test.
    shape: sizes of the call.
    names: constraints of a mask, or `bias`.
    seed: of the values.
    positions: whether the call has positions of its own, with gaps and an empty slot.
  """
  rng, claims = np.random.default_rng(seed), subject.claims
  wanted = set(names) & (claims.masks | ({"bias"} if claims.bias else set()))
  causal = "causal" in wanted or claims.requires_causal
  fields: dict[str, Any] = {"causal": causal, "window": (2, 3) if "window" in wanted else None}
  if "prefix" in wanted and causal:
    fields["prefix"] = jnp.asarray(_or_neutral(rng, rng.integers(0, shape.S + 1, shape.B, np.int32), 0))
  for name, length in (("q_valid", shape.T), ("kv_valid", shape.S)):
    if name in wanted:
      fields[name] = jnp.asarray(_or_neutral(rng, valid(rng, shape.B, length), True))
  if "segments" in wanted:
    numbers = segment_numbers(rng, max(shape.T, shape.S), repeated="explicit" in claims.masks)
    k = numbers[segments(rng, shape.B, shape.S)]
    fields["k_segments"] = jnp.asarray(k)
    fields["q_segments"] = jnp.asarray(numbers[segments(rng, shape.B, shape.T)] if shape.cross else k)
  if "explicit" in wanted:
    fields["explicit"] = jnp.asarray(_or_neutral(rng, pattern(rng, shape), True))
  bias = _bias(rng, shape) if "bias" in wanted else None
  return Call(Mask(**fields), random_positions(subject, shape, rng, fields) if positions else Positions(), bias)


def _bias(rng: Generator, shape: Shape) -> Any:
  return jnp.asarray(rng.normal(size=(shape.B, shape.N, shape.T, shape.S)).astype(np.float32))


def _or_neutral(rng: Generator, array: np.ndarray, neutral: Any) -> np.ndarray:
  return np.full_like(array, neutral) if rng.random() < 1 / 3 else array


def valid(rng: Generator, batch: int, length: int) -> np.ndarray:
  """`B length`: row 0 padded on the right, the others with holes, and sometimes a row of nothing but padding."""
  rows = rng.random((batch, length)) < 0.7
  rows[0] = np.arange(length) < rng.integers(1, length + 1)
  if batch > 1 and rng.random() < 1 / 3:
    rows[-1] = False
  return rows


def segments(rng: Generator, batch: int, length: int) -> np.ndarray:
  """`B length`: to which of its contiguous runs, three or so, each token belongs, counted from 0."""
  return np.cumsum(rng.random((batch, length)) < min(0.35, 2.5 / length), axis=1)


def segment_numbers(rng: Generator, length: int, repeated: bool) -> np.ndarray:
  """The numbers of `length` + 1 runs, in any order; `repeated` ones make a segment of runs that are apart."""
  numbers = rng.permutation(np.arange(-2, length)).astype(np.int32)
  return np.append(numbers[::2], numbers[::2])[: length + 1] if repeated else numbers[: length + 1]


def pattern(rng: Generator, shape: Shape) -> np.ndarray:
  """`B N T S`: any pattern, with a query that may read nothing."""
  readable = rng.random((shape.B, shape.N, shape.T, shape.S)) < 0.6
  readable[:, :, rng.integers(shape.T)] = False
  return readable


def random_positions(subject: VariantUnderTest, shape: Shape, rng: Generator, fields: dict[str, Any]) -> Positions:
  """Positions with gaps and an empty slot (−1), restarting in each segment.

  A variant that honours any explicit pattern knows no order but positions, so that its tokens come in any order; the
  others are promised ascending ones.
  """
  B, T, S = shape.B, shape.T, shape.S
  i = np.cumsum(rng.integers(1, 3, (B, T)), axis=1)
  j = np.cumsum(rng.integers(1, 3, (B, S)), axis=1) if shape.cross else i.copy()
  if "explicit" in subject.claims.masks:
    i, j = (rng.permuted(array, axis=1) for array in (i, j)) if shape.cross else [rng.permuted(i, axis=1)] * 2
  elif "q_segments" in fields:
    i, j = _restarted(i, np.asarray(fields["q_segments"])), _restarted(j, np.asarray(fields["k_segments"]))
  j = np.where(np.arange(S) == rng.integers(S), -1, j)
  return at_positions(i, j)


def _restarted(positions: np.ndarray, ids: np.ndarray) -> np.ndarray:
  """Positions `B T` less the first of their segment."""
  out = positions.copy()
  for row, row_ids in zip(out, ids, strict=True):
    for segment in np.unique(row_ids):
      row[row_ids == segment] -= row[row_ids == segment][0]
  return out
