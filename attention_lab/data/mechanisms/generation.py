"""Generated datasets of mechanisms, their oracle and their shuffled control.

A batch is tokens int32 [B, T] and targets int32 [B, T], at a question's own position, −1 where nothing is asked. With
`longest` the test split has examples of T, 2T, 4T, … tokens too, padded to the longest with token 0 (targets −1), and
longer int32 [B], the number of the example's length among metadata["lengths"].
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests
from attention_lab.data.generated import accuracy, check, fill
from attention_lab.data.mechanisms import fuzzy, needles, recalls, sequences
from attention_lab.data.mechanisms.base import PAD, Mechanism, Shape

MECHANISMS: dict[str, Mechanism] = {
  "in_context": recalls.IN_CONTEXT,
  "fuzzy": fuzzy.FUZZY,
  "noisy": recalls.NOISY,
  "selective_copy": sequences.SELECTIVE_COPY,
  "compression": sequences.COMPRESSION,
  "memorization": recalls.MEMORIZATION,
  "induction": sequences.INDUCTION,
  "parity": sequences.PARITY,
  "needle": needles.NEEDLE,
  "multi_key": needles.MULTI_KEY,
  "multi_value": needles.MULTI_VALUE,
  "multi_query": needles.MULTI_QUERY,
  "variable_tracking": needles.VARIABLE_TRACKING,
  "frequency": sequences.FREQUENCY,
}
_ROWS = 1 << 14  # examples made at a time, at most
_IDLE = 20  # rounds without a new example, before a split is given up


def resolve_shape(name: str, sizes: Mapping[str, int | float]) -> Shape:
  """The shape with the sizes asked for, by field, and the mechanism's defaults for 0; ValueError for a misfit."""
  mechanism = MECHANISMS[name]
  for field, value in sizes.items():
    if value and field not in mechanism.reads:
      fix = f"leave it at 0; it reads {', '.join(sorted(mechanism.reads))}"
      raise ValueError(f"--config.data.{field}={value} means nothing to {name}: {fix}")
  changed: dict[str, Any] = {field: value for field, value in sizes.items() if value}
  resolved = dataclasses.replace(mechanism.usual, **changed)
  check(mechanism.rules(resolved))
  return resolved


def tested_lengths(name: str, length: int, longest: int) -> tuple[int, ...]:
  """The lengths tested: T, 2T, 4T, … `longest`, or T alone for 0; ValueError for another number or a fixed length."""
  if longest in (0, length):
    return (length,)
  fixed = MECHANISMS[name].fixed
  if fixed:
    raise ValueError(f"--config.data.longest={longest} means nothing to {name}: {fixed}; leave it at 0")
  doubled = [length]
  while doubled[-1] < longest:
    doubled.append(2 * doubled[-1])
  if doubled[-1] != longest:
    fix = f"give {' or '.join(str(other) for other in dict.fromkeys(doubled[-2:]))}, or 0"
    raise ValueError(f"--config.data.longest={longest} is not length={length} doubled again and again; {fix}")
  return tuple(doubled)


def generate(
  name: str,
  fields: Mapping[str, int | float] | None = None,
  *,
  longest: int = 0,
  sizes: tuple[int, int, int] = (100_000, 1_000, 2_000),
  seed: int = 0,
) -> Dataset:
  """A generated dataset, each example once within and across splits.

  Args:
    name: one of MECHANISMS.
    fields: sizes by field of Shape; 0 or absent = the mechanism's default.
    longest: the longest test examples in tokens, T doubled again and again; 0 = T alone.
    sizes: the examples of train, validation and test, the last for each length.
    seed: a split depends on it and on the held-out sizes, not on the size of train; the test examples of the trained
      length do not depend on `longest`.

  Returns:
    A dataset of the arrays that the module describes. metadata["chance"] is that of a token drawn from all that may be
    asked. Controls, on the trained length: the oracle, the oracle on shuffled answers, and a token drawn from those of
    the example so far that may be asked.

  Raises:
    ValueError: sizes that do not fit, naming `--config.data.FIELD`.
  """
  shape, mechanism = resolve_shape(name, fields or {}), MECHANISMS[name]
  lengths = tested_lengths(name, shape.length, longest)
  check({f"{s}={n} is less than 1; give the number of examples": n >= 1 for s, n in zip(SPLITS, sizes, strict=True)})
  splits: dict[str, Arrays] = {}
  taken = np.zeros(0, np.uint64)
  for number in reversed(range(len(SPLITS))):
    rng = np.random.default_rng((seed, number))
    splits[SPLITS[number]], taken = _split(mechanism, shape, rng, SPLITS[number], sizes[number], taken)
  test = splits["test"]
  if len(lengths) > 1:
    splits["test"] = _lengthened(mechanism, shape, lengths, test, seed)
  metadata = {field: getattr(shape, field) for field in ("vocabulary", *sorted(mechanism.reads - {"vocabulary"}))}
  answers = mechanism.answers(shape)
  metadata |= {
    "sizes": {split: len(splits[split]) for split in SPLITS},
    "lengths": list(lengths),
    "answers": [answers.start, answers.stop],
    "chance": 1 / len(answers),
  }
  return Dataset(name, splits, digests(splits), metadata, _controls(name, shape, test))


def oracle(name: str, tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets, from unpadded tokens alone; those of `memorization` from its map too."""
  return MECHANISMS[name].solve(tokens.astype(np.int64), shape).astype(np.int32)


def shuffled(split: Arrays, seed: int = 0) -> Arrays:
  """The control split: the same tokens and questions, all answers mixed; nothing beyond chance can be learnt."""
  targets = split.arrays["targets"].copy()
  asked = targets >= 0
  targets[asked] = np.random.default_rng(seed).permutation(targets[asked])
  return Arrays(split.arrays | {"targets": targets})


def from_context(tokens: Int[np.ndarray, "B T"], targets: Int[np.ndarray, "B T"], answers: range) -> float:
  """The accuracy to expect of a token drawn from those so far that may be asked, or from all where there are none."""
  several = np.cumsum((tokens >= answers.start) & (tokens < answers.stop), axis=1)
  expected = []
  for position in np.flatnonzero((targets >= 0).any(axis=0)):
    asked = targets[:, position] >= 0
    right = (tokens[asked, : position + 1] == targets[asked, position, None]).sum(axis=1)
    total = several[asked, position]
    expected.append(np.where(total > 0, right / np.maximum(total, 1), 1 / len(answers)))
  return float(np.concatenate(expected).mean())


def _controls(name: str, shape: Shape, test: Arrays) -> Lazy:
  tokens, targets = test.arrays["tokens"], test.arrays["targets"]
  solve = functools.cache(lambda: oracle(name, tokens, shape))
  return Lazy(
    {
      "oracle": lambda: accuracy(solve(), targets),
      "oracle on shuffled answers": lambda: accuracy(solve(), shuffled(test).arrays["targets"]),
      "a token of the context": lambda: from_context(tokens, targets, MECHANISMS[name].answers(shape)),
    }
  )


def _lengthened(mechanism: Mechanism, shape: Shape, lengths: tuple[int, ...], test: Arrays, seed: int) -> Arrays:
  """The test split with as many examples of each longer length."""
  parts = [test]
  for number, length in enumerate(lengths[1:], start=1):
    rng = np.random.default_rng((seed, SPLITS.index("test"), number))
    longer = dataclasses.replace(shape, length=length)
    parts.append(_split(mechanism, longer, rng, "test", len(test), np.zeros(0, np.uint64))[0])
  blank = {"tokens": PAD, "targets": -1}
  padded = {
    field: np.concatenate(
      [
        np.pad(examples.arrays[field], ((0, 0), (0, lengths[-1] - length)), constant_values=value)
        for examples, length in zip(parts, lengths, strict=True)
      ]
    )
    for field, value in blank.items()
  }
  return Arrays(padded | {"longer": np.repeat(np.arange(len(lengths), dtype=np.int32), len(test))})


def _split(
  mechanism: Mechanism, shape: Shape, rng: np.random.Generator, name: str, size: int, taken: np.ndarray
) -> tuple[Arrays, np.ndarray]:
  """`size` examples whose fingerprints are not among `taken`, and `taken` with theirs."""

  def some(missing: int) -> dict[str, np.ndarray]:
    arrays = mechanism.make(rng, min(_ROWS, max(missing, 256)), shape)
    return {field: array.astype(np.int32) for field, array in zip(("tokens", "targets"), arrays, strict=True)}

  problem = f"--config.data.{name}={size} is more than there are different examples; give fewer, or a larger length"
  arrays, taken = fill(some, size, taken, idle=_IDLE, problem=problem)
  return Arrays(arrays), taken
