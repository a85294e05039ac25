import itertools
import random
import statistics

import numpy as np
import pytest

from attention_lab.data import listops
from attention_lab.data.dataset import SPLITS

SMALL = {"length": 64, "train": 600, "validation": 100, "test": 200}
CELLS = [{}, {"depth": 3, "arguments": 4, "shortest": 5}, {"length": 30, "shortest": 20, "seed": 3}]


@pytest.fixture(scope="module", params=CELLS, ids=str)
def cell(request):
  parameters = {"shortest": 16, "depth": 10, "arguments": 10} | SMALL | request.param
  return parameters, listops.generate(**SMALL | request.param)


def parse(symbols):
  """The tree of a list of words, consumed from its front: (levels, arguments of each operator, value)."""
  word = symbols.pop(0)
  if word.isdigit():
    return 1, [], int(word)
  levels, widths, values = [], [], []
  while symbols[0] != "]":
    below, more, value = parse(symbols)
    levels, widths, values = [*levels, below], widths + more, [*values, value]
  symbols.pop(0)
  rules = {"[MIN": min, "[MAX": max, "[SM": lambda v: sum(v) % 10, "[MED": lambda v: int(statistics.median(v))}
  return 1 + max(levels), [*widths, len(values)], rules[word](values)


def test_labels_equal_a_recursive_evaluation_and_trees_keep_their_bounds(cell):
  parameters, source = cell
  for split in SPLITS:
    expressions = source.splits[split]
    arrays = expressions.arrays
    for index in range(len(expressions)):
      symbols = expressions.describe(index).split()
      assert len(symbols) == arrays["length"][index] == np.count_nonzero(arrays["tokens"][index])
      levels, widths, value = parse(symbols)
      assert not symbols
      assert value == arrays["label"][index] == listops.evaluate(arrays["tokens"][index])
      assert 2 <= levels <= parameters["depth"]
      assert min(widths) >= 2
      assert max(widths) <= parameters["arguments"]
    assert arrays["length"].min() >= parameters["shortest"]
    assert arrays["length"].max() <= parameters["length"]
  assert source.controls["oracle"] == 1


def test_no_tree_occurs_twice_within_or_across_splits_though_hardly_more_exist():
  source = listops.generate(4, 300, 50, 50, depth=2, arguments=2, shortest=4)
  rows = np.concatenate([source.splits[split].arrays["tokens"] for split in SPLITS])
  assert len(np.unique(rows, axis=0)) == len(rows) == 400  # all there are: 4 operators, 10 times 10 digits
  with pytest.raises(ValueError, match=r"--config\.data\.train=301 is more than"):
    listops.generate(4, 301, 50, 50, depth=2, arguments=2, shortest=4)


def published(rng, depth, longest):
  """Lengths of one tree as the published program draws it: (tokens, root operator, its arguments)."""
  if depth == longest or (depth > 1 and rng.random() > listops.NESTED):
    return 1
  return 2 + sum(published(rng, depth + 1, longest) for _ in range(rng.randint(2, 10)))


def test_lengths_are_distributed_as_in_the_published_program():
  rng = random.Random(0)
  drawn = [published(rng, 1, 4) for _ in range(12_000)]
  expected = np.array([length for length in drawn if 16 <= length <= 64])
  source = listops.generate(64, 4_000, 1, 1, depth=4)
  lengths = source.splits["train"].arrays["length"]
  edges = np.arange(16, 65, 8)
  for low, high in itertools.pairwise(edges):
    ours, theirs = (((values >= low) & (values < high)).mean() for values in (lengths, expected))
    spread = (theirs * (1 - theirs) * (1 / len(lengths) + 1 / len(expected))) ** 0.5
    assert abs(ours - theirs) < 5 * spread


def test_operators_and_digits_are_uniform():
  tokens = listops.generate(64, 4_000, 1, 1).splits["train"].arrays["tokens"]
  counts = np.bincount(tokens.reshape(-1), minlength=listops.VOCABULARY)
  digits, operators = counts[1:11], counts[11:15]
  np.testing.assert_allclose(digits / digits.sum(), 0.1, atol=0.005)
  np.testing.assert_allclose(operators / operators.sum(), 0.25, atol=0.015)
  assert operators.sum() == counts[listops.CLOSE]


def test_the_reference_lines_are_what_their_names_say(cell):
  _, source = cell
  train, test = (source.splits[split].arrays for split in ("train", "test"))
  commonest = statistics.mode(train["label"].tolist())
  assert source.controls["largest class"] == pytest.approx((test["label"] == commonest).mean())
  assert source.metadata["chance"] < source.controls["operator at the root"] < 1
  met_by_chance = np.sum((np.bincount(test["label"]) / len(test["label"])) ** 2)
  assert abs(source.controls["oracle on shuffled answers"] - met_by_chance) < 5 * (0.25 / len(test["label"])) ** 0.5
  guesses = {root: np.bincount(train["label"][train["tokens"][:, 0] == root]).argmax() for root in range(11, 15)}
  right = [guesses[root] == label for root, label in zip(test["tokens"][:, 0], test["label"], strict=True)]
  assert source.controls["operator at the root"] == pytest.approx(np.mean(right))


def test_batches_are_int32_and_the_same_call_makes_the_same_data():
  first, again = listops.generate(**SMALL), listops.generate(**SMALL)
  longer, other = listops.generate(**SMALL | {"train": 900}), listops.generate(**SMALL, seed=1)
  batch = first.splits["test"][np.array([5, 0])]
  assert {name: (array.dtype, array.shape) for name, array in batch.items()} == {
    "tokens": (np.int32, (2, 64)),
    "length": (np.int32, (2,)),
    "label": (np.int32, (2,)),
  }
  assert first.digests == again.digests
  assert first.digests["test"] == longer.digests["test"] != other.digests["test"]
  assert first.digests["validation"] == longer.digests["validation"]


@pytest.mark.parametrize(
  "symbols", ["[MAX 1 2", "[MAX ]", "1 2", "]", "[MAX 1 ] ]", ""], ids=lambda symbols: symbols or "nothing"
)
def test_the_solver_refuses_what_is_no_expression(symbols):
  ids = {"[MAX": 12, "]": 15, "1": 2, "2": 3}
  with pytest.raises(ValueError, match="expression"):
    listops.evaluate(np.array([ids[word] for word in symbols.split()], np.int32))


@pytest.mark.parametrize(
  ("parameters", "message"),
  [
    ({"length": 3}, r"--config\.data\.length=3"),
    ({"shortest": 65}, r"--config\.data\.shortest=65 must lie between 4 and length=64"),
    ({"depth": 1}, r"--config\.data\.depth=1"),
    ({"arguments": 1}, r"--config\.data\.arguments=1"),
    ({"validation": 0}, r"--config\.data\.validation=0"),
    ({"depth": 2, "arguments": 3}, r"--config\.data\.test=200 is more than"),
  ],
)
def test_what_cannot_be_generated_is_refused_by_flag(parameters, message):
  with pytest.raises(ValueError, match=message):
    listops.generate(**SMALL | parameters)


def test_the_generator_makes_what_it_made_when_results_were_written():
  assert listops.generate(**SMALL).digests["test"] == "44c885ce51c1995b"
