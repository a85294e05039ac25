"""Multi-query associative recall, generated as published and repaired.

An example of T tokens begins with `pairs` keys, each followed by its value; then every key comes once more, as a
query whose target is its value. Keys are distinct tokens of 1…V/2−1, values distinct ones of V/2…V−1. Queries stand at
every other slot behind the context, at gaps drawn without replacement with p(x) ∝ a x^(a−1), x = 1, 2, …; the other
slots hold filler: 'blank' (token 0) or 'random' (any token). A batch is

  tokens int32 [B, T]       targets int32 [B, T], the value at a query's own position, −1 where nothing is asked

Arora et al. 2023, "Zoology: Measuring and Improving Recall in Efficient Language Models", §3 and its `multiquery_ar`.
Repaired (its issue 29): there random filler may repeat a key of the example, so that a query stands where none is
asked, or follow a query with a wrong value. Here filler is never a key of its example, never a value behind a query.
Examples are unique, within and across the splits.
"""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Int

from attention_lab.data.dataset import SPLITS, Arrays, Dataset, Lazy, digests
from attention_lab.data.generated import accuracy, check, distinct, fill

RECALLS = ("recall",)  # names of datasets
FIELDS = ("tokens", "targets")  # arrays of a split
FILLERS = ("random", "blank")  # tokens of the slots between queries
_ROWS = 1 << 15  # examples made at a time
_IDLE = 20  # rounds without a new example, before a split is given up


def generate(
  vocabulary: int = 32,
  length: int = 32,
  pairs: int = 4,
  *,
  power: float = 0.01,
  filler: str = "random",
  sizes: tuple[int, int, int] = (100_000, 1_000, 3_000),
  seed: int = 0,
) -> Dataset:
  """A recall dataset, each example once within and across splits.

  Args:
    vocabulary: V, in ids.
    length: T, in tokens.
    pairs: keys with values in the context of an example.
    power: a of the distribution of gaps, above 0; 1 makes all gaps alike.
    filler: one of FILLERS.
    sizes: the examples of train, validation and test.
    seed: a split depends on it and on the held-out sizes, not on the size of train.

  Returns:
    A dataset of the arrays that the module describes. `metadata["chance"]` is that of a value drawn from all values,
    `metadata["context_chance"]` that of one drawn from the example's own.

  Raises:
    ValueError: sizes that do not fit, naming `--config.data.FIELD`.
  """
  _check(vocabulary, length, pairs, power=power, filler=filler, sizes=sizes)
  make = functools.partial(_examples, vocabulary=vocabulary, length=length, pairs=pairs, power=power, filler=filler)
  splits: dict[str, Arrays] = {}
  taken = np.zeros(0, np.uint64)
  for number in reversed(range(len(SPLITS))):
    splits[SPLITS[number]], taken = _split(make, sizes[number], seed, number, taken)
  metadata = make.keywords | {
    "sizes": dict(zip(SPLITS, sizes, strict=True)),
    "chance": 1 / (vocabulary - vocabulary // 2),
    "context_chance": 1 / pairs,
  }
  test = splits["test"].arrays
  answers = lambda split: accuracy(oracle(test["tokens"], pairs), split.arrays["targets"])
  controls = {
    "oracle": lambda: answers(splits["test"]),
    "oracle on shuffled answers": lambda: answers(shuffled(splits["test"])),
    "a value of the context": lambda: metadata["context_chance"],
  }
  return Dataset("recall", splits, digests(splits), metadata, Lazy(controls))


def oracle(tokens: Int[np.ndarray, "B T"], pairs: int) -> Int[np.ndarray, "B T"]:
  """The targets, from the tokens alone: behind the context, each key of the context is answered with its value."""
  keys, values = tokens[:, None, 0 : 2 * pairs : 2], tokens[:, None, 1 : 2 * pairs : 2]
  matches = tokens[:, :, None] == keys
  matches[:, : 2 * pairs] = False
  answers = np.take_along_axis(np.broadcast_to(values, matches.shape), matches.argmax(-1)[..., None], axis=-1)[..., 0]
  return np.where(matches.any(-1), answers, -1).astype(np.int32)


def shuffled(split: Arrays, seed: int = 0) -> Arrays:
  """The control split: each example with the answers of another; nothing beyond chance can be learnt."""
  tokens, targets = split.arrays["tokens"], split.arrays["targets"].copy()
  asked = targets >= 0
  answers = targets[asked].reshape(len(targets), -1)
  targets[asked] = np.random.default_rng(seed).permutation(answers).reshape(-1)
  return Arrays({"tokens": tokens, "targets": targets})


def _check(vocabulary: int, length: int, pairs: int, *, power: float, filler: str, sizes: tuple[int, int, int]) -> None:
  keys = vocabulary // 2 - 1
  rules = {
    f"pairs={pairs} is less than 1; give 1 or more": pairs >= 1,
    f"vocabulary={vocabulary} has {keys} keys for pairs={pairs}; give vocabulary >= {2 * pairs + 2}": keys >= pairs,
    f"length={length} cannot hold pairs={pairs} and their queries; give length >= {4 * pairs}": length >= 4 * pairs,
    f"power={power} is not positive; give 0.01 (published: most gaps short) to 1 (all gaps alike)": power > 0,
    f"filler={filler} is unknown; choices: {', '.join(FILLERS)}": filler in FILLERS,
  }
  for split, size in zip(SPLITS, sizes, strict=True):
    rules[f"{split}={size} is less than 1; give the number of examples"] = size >= 1
  check(rules)


def _split(make: Callable, size: int, seed: int, number: int, taken: np.ndarray) -> tuple[Arrays, np.ndarray]:
  """`size` examples whose fingerprints are not among `taken`, and `taken` with theirs."""
  rng = np.random.default_rng((seed, number))
  some = lambda missing: dict(zip(FIELDS, make(rng, min(_ROWS, max(missing, 256))), strict=True))
  problem = f"--config.data.{SPLITS[number]}={size} is more than there are different examples"
  fix = "give fewer, or a larger vocabulary, length or number of pairs"
  arrays, taken = fill(some, size, taken, idle=_IDLE, problem=f"{problem}; {fix}")
  return Arrays(arrays), taken


def _examples(
  rng: np.random.Generator, count: int, *, vocabulary: int, length: int, pairs: int, power: float, filler: str
) -> tuple[np.ndarray, np.ndarray]:
  half, context = vocabulary // 2, 2 * pairs
  keys = 1 + distinct(rng, count, half - 1, pairs)
  values = half + distinct(rng, count, vocabulary - half, pairs)
  log_p = (power - 1) * np.log(np.arange(1, (length - context) // 2 + 1))
  gaps = np.argsort(-(log_p + rng.gumbel(size=(count, len(log_p)))), axis=1)[:, :pairs]
  places = context + 2 * gaps

  tokens = np.zeros((count, length), np.int64)
  if filler == "random":
    tokens = _avoid(rng.integers(0, vocabulary - pairs, (count, length)), keys, vocabulary)
    behind = _avoid(rng.integers(0, half - pairs, (count, pairs)), keys, vocabulary)
    np.put_along_axis(tokens, places + 1, behind, axis=1)
  tokens[:, 0:context:2], tokens[:, 1:context:2] = keys, values
  np.put_along_axis(tokens, places, keys, axis=1)
  targets = np.full((count, length), -1, np.int32)
  np.put_along_axis(targets, places, values.astype(np.int32), axis=1)
  return tokens.astype(np.int32), targets


def _avoid(ranks: np.ndarray, keys: np.ndarray, vocabulary: int) -> np.ndarray:
  """The tokens of rank `ranks` [B, R] among all that are not in the row's `keys` [B, P]."""
  rows = np.arange(len(keys))[:, None] * vocabulary
  steps = np.sort(keys, axis=1) - np.arange(keys.shape[1]) + rows
  below = np.searchsorted(steps.reshape(-1), (ranks + rows).reshape(-1), side="right").reshape(ranks.shape)
  return ranks + below - np.arange(len(keys))[:, None] * keys.shape[1]
