"""ListOps, generated as Long Range Arena publishes it: nested MIN, MAX, MED and SM of digits; the answer is a digit.

A tree of at most `depth` levels has an operator at its root; below, a node is a digit with probability 3/4, else an
operator with 2 … `arguments` arguments, all alike likely, and always a digit at the last level. MED is the median
rounded down, SM the sum modulo 10. Kept are the different trees of `shortest` to `length` tokens. A batch is

  tokens int32 [B, T]    0 padding, 1 … 10 the digits 0 … 9, 11 … 14 the operators, 15 the closing bracket
  length int32 [B]       label int32 [B], 0 … 9

Tay et al. 2021, "Long Range Arena", and its `data/listops.py`, after Nangia and Bowman 2018. The published files have
501 to 1,999 tokens and an unknown seed, so that only their distribution can be made again:
`generate(1999, shortest=501)`. Parentheses are dropped, as the published tokenizer does. Here trees grow level by
level, many at once, and those that are already too long stop growing; the distribution is the same.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int, Integer

from attention_lab.data import controls
from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests
from attention_lab.data.generated import check, fill

OPERATORS = ("MIN", "MAX", "MED", "SM")
DIGIT, OPERATOR, CLOSE, VOCABULARY = 1, 11, 15, 16  # ids: the digit 0, MIN, the bracket; how many there are
CLASSES = 10
NESTED = 0.25  # probability that a node is an operator
_ROOTS = 1 << 13  # trees begun at a time
_IDLE = 20  # rounds without a new tree, before a split is given up


class Expressions(Arrays):
  """Token rows kept as bytes and widened to int32 when a batch is gathered."""

  def __getitem__(self, indices: Int[np.ndarray, "B"]) -> dict[str, np.ndarray]:
    return {name: array.astype(np.int32) for name, array in super().__getitem__(indices).items()}

  def describe(self, index: int) -> str:
    """The expression as it is published, without parentheses: `[MAX 2 9 [MIN 4 7 ] 0 ]`."""
    symbols = ["", *map(str, range(10)), *(f"[{name}" for name in OPERATORS), "]"]
    return " ".join(symbols[token] for token in self.arrays["tokens"][index] if token)


def generate(
  length: int = 512,
  train: int = 96_000,
  validation: int = 2_000,
  test: int = 2_000,
  *,
  depth: int = 10,
  arguments: int = 10,
  shortest: int = 0,
  seed: int = 0,
) -> Dataset:
  """Different expressions, each once within and across splits.

  Args:
    length: T, the most tokens of an expression.
    train: examples of that split.
    validation: examples of that split.
    test: examples of that split.
    depth: levels of a tree, at most.
    arguments: arguments of an operator, at most.
    shortest: the fewest tokens of an expression; 0 = length/4, as published.
    seed: a split depends on it and on the held-out sizes, not on the size of train.

  Returns:
    A dataset of the arrays that the module describes. Controls, in accuracy on the test split: the oracle, which
    evaluates each expression, that on shuffled answers, the largest class, and the most frequent answer of train to
    each operator at the root, which needs no more than the first token.

  Raises:
    ValueError: sizes that do not fit, by flag.
  """
  shape = _Shape(length, shortest or -(-length // 4), depth, arguments)
  sizes = dict(zip(SPLITS, (train, validation, test), strict=True))
  _check(shape, sizes)
  splits: dict[str, Expressions] = {}
  taken = np.zeros(0, np.uint64)
  for number in reversed(range(len(SPLITS))):
    rng = np.random.default_rng((seed, number))
    splits[SPLITS[number]], taken = _split(rng, shape, SPLITS[number], sizes[SPLITS[number]], taken)
  metadata = dataclasses.asdict(shape) | {
    "vocabulary": VOCABULARY,
    "classes": CLASSES,
    "names": [str(digit) for digit in range(CLASSES)],
    "sizes": sizes,
    "truncated": dict.fromkeys(SPLITS, 0),
    "chance": 1 / CLASSES,
  }
  return Dataset("listops", splits, digests(splits), metadata, _controls(splits))


def evaluate(tokens: Integer[np.ndarray, "T"]) -> int:
  """The value of one expression, 0 … 9, by a stack machine; padding (0) is skipped. ValueError if it is malformed."""
  operators: dict[str, Callable[[list[int]], int]] = {"MIN": min, "MAX": max, "MED": _median, "SM": _sum_modulo}
  stack: list[tuple[str, list[int]]] = [("", [])]
  for token in tokens.tolist():
    if OPERATOR <= token < CLOSE:
      stack.append((OPERATORS[token - OPERATOR], []))
    elif DIGIT <= token < OPERATOR:
      stack[-1][1].append(token - DIGIT)
    elif token == CLOSE and len(stack) > 1 and stack[-1][1]:
      name, values = stack.pop()
      stack[-1][1].append(operators[name](values))
    elif token:
      raise ValueError(f"token {token} cannot stand here in an expression; it takes ids 1 to 15 and matched brackets")
  if len(stack) != 1 or len(stack[0][1]) != 1:
    raise ValueError("an expression has one root and closes every bracket; these tokens do not")
  return stack[0][1][0]


def oracle(split: Arrays) -> float:
  """The accuracy of `evaluate` on a split."""
  solved = np.array([evaluate(tokens) for tokens in split.arrays["tokens"]])
  return float((solved == split.arrays["label"]).mean())


def shuffled(split: Arrays, seed: int = 0) -> Arrays:
  """The control split: the same expressions, all answers mixed; nothing beyond chance can be learnt."""
  return Arrays(split.arrays | {"label": np.random.default_rng(seed).permutation(split.arrays["label"])})


def _sum_modulo(values: list[int]) -> int:
  return sum(values) % 10


def _median(values: list[int]) -> int:
  ordered = sorted(values)
  return (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) // 2


def _controls(splits: Mapping[str, Arrays]) -> Lazy:
  train, test = splits["train"], splits["test"]
  return Lazy(
    {
      "oracle": lambda: oracle(test),
      "oracle on shuffled answers": lambda: oracle(shuffled(test)),
      "largest class": lambda: controls.largest_class(train.arrays["label"], test.arrays["label"]),
      "operator at the root": lambda: _by_root(train, test),
    }
  )


def _by_root(train: Arrays, test: Arrays) -> float:
  counts = np.zeros((VOCABULARY, CLASSES), np.int64)
  np.add.at(counts, (train.arrays["tokens"][:, 0], train.arrays["label"]), 1)
  return float((counts.argmax(axis=1)[test.arrays["tokens"][:, 0]] == test.arrays["label"]).mean())


@dataclasses.dataclass(frozen=True)
class _Shape:
  length: int
  shortest: int
  depth: int
  arguments: int


def _check(shape: _Shape, sizes: Mapping[str, int]) -> None:
  longest, shortest = shape.length, shape.shortest
  rules = {
    f"length={longest} is too short for an operator with two digits; give length >= 4": longest >= 4,
    f"shortest={shortest} must lie between 4 and length={longest}; 0 means length/4": 4 <= shortest <= longest,
    f"depth={shape.depth} has no room for an operator over digits; give depth >= 2": shape.depth >= 2,
    f"arguments={shape.arguments} is less than 2; give the most arguments of an operator": shape.arguments >= 2,
  } | {f"{name}={size} is less than 1; give the number of examples": size >= 1 for name, size in sizes.items()}
  check(rules)


def _split(
  rng: np.random.Generator, shape: _Shape, name: str, size: int, taken: np.ndarray
) -> tuple[Expressions, np.ndarray]:
  """`size` trees whose fingerprints are not among `taken`, and `taken` with theirs."""
  trees = f"different trees of {shape.shortest} to {shape.length} tokens"
  fix = "give fewer, or a larger length, depth or number of arguments"
  problem = f"--config.data.{name}={size} is more than there are {trees}; {fix}"
  arrays, taken = fill(lambda _: _trees(rng, shape), size, taken, idle=_IDLE, problem=problem)
  return Expressions(arrays), taken


@dataclasses.dataclass
class _Level:
  """The nodes of one depth in all trees: those of one parent together, parents in order."""

  root: Any  # the tree of each node
  kind: Any  # token id: a digit or an operator
  nested: Any  # indices of the operators
  arguments: Any  # the number of arguments of each operator
  size: Any = None  # tokens of the subtree
  value: Any = None  # value of the subtree
  offset: Any = None  # index of its first token in its tree

  @property
  def starts(self) -> np.ndarray:
    """The index in the next level at which each operator's arguments begin."""
    return np.cumsum(self.arguments) - self.arguments


def _trees(rng: np.random.Generator, shape: _Shape) -> dict[str, np.ndarray]:
  levels = list(_grow(rng, shape))
  _fold(levels)
  top = levels[0]
  fitting = np.flatnonzero((top.size >= shape.shortest) & (top.size <= shape.length))
  row = np.full(_ROOTS, -1)
  row[fitting] = np.arange(len(fitting))
  tokens = np.zeros((len(fitting), shape.length), np.uint8)
  top.offset = np.zeros(_ROOTS, np.int64)
  for level, below in zip(levels, [*levels[1:], None], strict=True):
    inside = np.flatnonzero(row[level.root] >= 0)
    tokens[row[level.root[inside]], level.offset[inside]] = level.kind[inside]
    closing = level.nested[row[level.root[level.nested]] >= 0]
    tokens[row[level.root[closing]], level.offset[closing] + level.size[closing] - 1] = CLOSE
    if below is not None:
      before = np.cumsum(below.size) - below.size
      below.offset = 1 + before + np.repeat(level.offset[level.nested] - before[level.starts], level.arguments)
  return {"tokens": tokens, "length": top.size[fitting].astype(np.int32), "label": top.value[fitting].astype(np.int32)}


def _grow(rng: np.random.Generator, shape: _Shape) -> Iterator[_Level]:
  root, tokens = np.arange(_ROOTS), np.zeros(_ROOTS, np.int64)
  for depth in range(1, shape.depth + 1):
    is_nested = rng.random(len(root)) < NESTED if depth > 1 else np.ones(len(root), bool)
    is_nested &= depth < shape.depth
    tokens += np.bincount(root, weights=1 + is_nested, minlength=_ROOTS).astype(np.int64)
    nested = np.flatnonzero(is_nested & (tokens[root] <= shape.length))
    kind = rng.integers(DIGIT, OPERATOR, len(root))
    kind[is_nested] = rng.integers(OPERATOR, CLOSE, is_nested.sum())
    arguments = rng.integers(2, shape.arguments + 1, len(nested))
    yield _Level(root, kind, nested, arguments, size=1 + is_nested, value=kind - DIGIT)
    if not len(nested):
      return
    root = np.repeat(root[nested], arguments)


def _fold(levels: list[_Level]) -> None:
  """Sizes and values from the leaves up; trees that stopped growing keep a size beyond the longest."""
  for level, below in zip(levels[-2::-1], levels[:0:-1], strict=True):
    starts, nested = level.starts, level.nested
    level.size[nested] += np.add.reduceat(below.size, starts)
    values = below.value
    segment = np.repeat(np.arange(len(nested)), level.arguments)
    ordered = values[np.lexsort((values, segment))]
    middle = ordered[starts + (level.arguments - 1) // 2] + ordered[starts + level.arguments // 2]
    results = (
      ordered[starts],
      ordered[starts + level.arguments - 1],
      middle // 2,
      np.add.reduceat(values, starts) % 10,
    )
    level.value[nested] = np.choose(level.kind[nested] - OPERATOR, results)
