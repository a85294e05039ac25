"""Every generated mechanism: solvable from the tokens, at chance when shuffled, never twice the same example."""

import dataclasses

import numpy as np
import pytest

from attention_lab.data.dataset import SPLITS, Arrays
from attention_lab.data.generated import accuracy
from attention_lab.data.mechanisms import generation

SMALL = (1200, 150, 300)
OTHERS = {
  "in_context": {"length": 26, "vocabulary": 13, "items": 3},
  "fuzzy": {"length": 70, "vocabulary": 23, "items": 5, "span": 3},
  "noisy": {"length": 60, "vocabulary": 30, "items": 4, "noise": 0.6},
  "selective_copy": {"length": 19, "vocabulary": 7, "items": 5},
  "compression": {"length": 11, "vocabulary": 10},
  "memorization": {"length": 12, "vocabulary": 31},
  "induction": {"length": 9, "vocabulary": 12},
  "parity": {"length": 17},
  "needle": {"length": 20, "vocabulary": 20, "span": 3},
  "multi_key": {"length": 40, "vocabulary": 17, "items": 7, "span": 2},
  "multi_value": {"length": 41, "vocabulary": 20, "items": 3, "span": 3},
  "multi_query": {"length": 43, "vocabulary": 22, "items": 5, "span": 2},
  "variable_tracking": {"length": 55, "vocabulary": 40, "items": 3, "hops": 3},
  "frequency": {"length": 12, "vocabulary": 6},
}
CELLS = [(name, knobs) for name, others in OTHERS.items() for knobs in ({}, others)]


@pytest.fixture(scope="module", params=CELLS, ids=lambda cell: f"{cell[0]}-{len(cell[1]) or 'usual'}")
def cell(request):
  name, knobs = request.param
  return name, generation.resolve_shape(name, knobs), generation.generate(name, knobs, sizes=SMALL)


def spread(chance, count):
  """Five standard deviations of a frequency."""
  return 5 * (chance * (1 - chance) / count) ** 0.5


def test_there_is_another_cell_for_every_mechanism():
  assert set(OTHERS) == set(generation.MECHANISMS)


def test_a_solver_that_reads_only_the_tokens_answers_everything_and_nothing_else(cell):
  name, shape, source = cell
  for split in SPLITS:
    arrays = source.splits[split].arrays
    np.testing.assert_array_equal(generation.oracle(name, arrays["tokens"], shape), arrays["targets"])
    assert (arrays["targets"] >= 0).any(axis=1).all()
  assert source.controls["oracle"] == 1


def test_the_shuffled_control_leaves_the_solver_at_chance(cell):
  name, shape, source = cell
  train = source.splits["train"]
  control = generation.shuffled(train)
  answers = generation.oracle(name, train.arrays["tokens"], shape)
  chance = source.metadata["chance"]
  assert abs(accuracy(answers, control.arrays["targets"]) - chance) < spread(chance, SMALL[0])
  np.testing.assert_array_equal(control.arrays["targets"] >= 0, train.arrays["targets"] >= 0)
  counts = [np.bincount(split.arrays["targets"].reshape(-1) + 1) for split in (train, control)]
  np.testing.assert_array_equal(*counts)


def test_a_guess_is_right_as_often_as_chance_says_and_no_one_answer_more_often(cell):
  _, _, source = cell
  (start, stop), chance = source.metadata["answers"], source.metadata["chance"]
  targets = source.splits["train"].arrays["targets"]
  asked = targets[targets >= 0]
  assert asked.min() >= start
  assert asked.max() < stop
  assert chance == 1 / (stop - start)
  guesses = np.random.default_rng(1).integers(start, stop, targets.shape)
  assert abs(accuracy(guesses, targets) - chance) < spread(chance, len(asked))
  shares = np.bincount(asked, minlength=stop)[start:] / len(asked)
  assert shares.max() < chance + spread(chance, SMALL[0]) + 0.01


def test_tokens_are_int32_and_of_the_vocabulary(cell):
  _, shape, source = cell
  batch = source.splits["test"][np.array([3, 0])]
  assert {name: (array.dtype, array.shape) for name, array in batch.items()} == {
    "tokens": (np.int32, (2, shape.length)),
    "targets": (np.int32, (2, shape.length)),
  }
  tokens = source.splits["train"].arrays["tokens"]
  assert tokens.min() >= 0
  assert tokens.max() < shape.vocabulary


def test_no_example_occurs_twice_within_or_across_splits(cell):
  _, _, source = cell
  rows = np.concatenate([source.splits[split].arrays["tokens"] for split in SPLITS])
  assert len(np.unique(rows, axis=0)) == len(rows) == sum(SMALL)


def test_every_example_there_is_may_be_used_and_no_more():
  source = generation.generate("parity", {"length": 6}, sizes=(40, 8, 16))
  rows = np.concatenate([source.splits[split].arrays["tokens"] for split in SPLITS])
  assert len(np.unique(rows, axis=0)) == 64
  with pytest.raises(ValueError, match=r"--config\.data\.train=41 is more than there are different examples"):
    generation.generate("parity", {"length": 6}, sizes=(41, 8, 16))


@pytest.mark.parametrize("name", generation.MECHANISMS)
def test_the_same_call_makes_the_same_data_and_held_out_splits_do_not_depend_on_the_size_of_train(name):
  first, again = (generation.generate(name, sizes=(200, 60, 80)) for _ in range(2))
  longer, other = generation.generate(name, sizes=(300, 60, 80)), generation.generate(name, sizes=(200, 60, 80), seed=1)
  assert first.digests == again.digests
  assert first.digests["test"] == longer.digests["test"] != other.digests["test"]
  assert first.digests["validation"] == longer.digests["validation"]


@pytest.mark.parametrize("name", [name for name, mechanism in generation.MECHANISMS.items() if not mechanism.fixed])
def test_the_test_split_has_as_many_examples_of_each_longer_length_padded_to_the_longest(name):
  shape = generation.resolve_shape(name, {})
  source = generation.generate(name, longest=4 * shape.length, sizes=(10, 20, 30))
  assert source.metadata["lengths"] == [shape.length, 2 * shape.length, 4 * shape.length]
  arrays = source.splits["test"].arrays
  assert source.metadata["sizes"]["test"] == len(arrays["tokens"]) == 90
  for number, length in enumerate(source.metadata["lengths"]):
    rows = arrays["longer"] == number
    tokens, targets = arrays["tokens"][rows], arrays["targets"][rows]
    assert rows.sum() == len(np.unique(tokens, axis=0)) == 30
    assert not tokens[:, length:].any()
    assert (targets[:, length:] == -1).all()
    resized = dataclasses.replace(shape, length=length)
    np.testing.assert_array_equal(generation.oracle(name, tokens[:, :length], resized), targets[:, :length])
  alone = generation.generate(name, sizes=(10, 20, 30))
  np.testing.assert_array_equal(alone.splits["test"].arrays["tokens"], arrays["tokens"][:30, : shape.length])
  assert alone.digests["train"] == source.digests["train"]
  assert source.controls["oracle"] == 1
  assert "longer" not in source.splits["validation"].arrays


def test_a_token_of_the_context_is_right_as_often_as_counting_says():
  tokens = np.array([[5, 6, 6, 9], [9, 9, 9, 9]], np.int32)
  targets = np.array([[-1, -1, -1, 6], [-1, 5, -1, -1]], np.int32)
  assert generation.from_context(tokens, targets, range(5, 9)) == pytest.approx((2 / 3 + 1 / 4) / 2)


def test_answers_of_different_numbers_of_questions_are_shuffled_over_the_split():
  targets = np.array([[1, -1, 2], [-1, 3, -1]], np.int32)
  mixed = generation.shuffled(Arrays({"tokens": targets, "targets": targets}), seed=3).arrays["targets"]
  assert sorted(mixed[mixed >= 0]) == [1, 2, 3]
  assert (mixed != targets).any()


@pytest.mark.parametrize(
  "name, knobs, message",
  [
    ("in_context", {"length": 33}, r"length=33 is odd"),
    ("in_context", {"items": 17}, r"items=17 are more than the 16 keys of vocabulary=34"),
    ("in_context", {"length": 12}, r"items=6 leave none of the 6 pairs of length=12"),
    ("in_context", {"items": -1}, r"items=-1 are no keys; give items >= 1"),
    (
      "in_context",
      {"noise": 0.2},
      r"noise=0\.2 means nothing to in_context: leave it at 0; it reads items, len",
    ),
    ("noisy", {"noise": 1.5}, r"noise=1\.5 is no fraction"),
    ("noisy", {"noise": 0.9}, r"items=6 leave none of the 2 pairs"),
    ("fuzzy", {"length": 19}, r"length=19 may not hold items=4 .*length >= 20"),
    ("fuzzy", {"span": 13, "length": 500}, r"span=13 over vocabulary=34 makes more words"),
    ("fuzzy", {"vocabulary": 7}, r"vocabulary=7 has no four alphabets"),
    ("selective_copy", {"length": 12}, r"length=12 cannot hold items=6 twice and a mark; give length >= 13"),
    ("compression", {"length": 4}, r"length=4 asks for no two places; give length >= 5"),
    ("compression", {"vocabulary": 18}, r"vocabulary=18 has no two tokens beside .*vocabulary >= 19"),
    ("memorization", {"items": 3}, r"items=3 means nothing to memorization"),
    ("memorization", {"length": 7}, r"length=7 must be even"),
    ("induction", {"length": 2}, r"length=2 has nothing to find"),
    ("parity", {"vocabulary": 5}, r"vocabulary=5 means nothing to parity: leave it at 0; it reads length$"),
    ("needle", {"items": 2}, r"items=2 means nothing to needle"),
    ("needle", {"length": 8}, r"length=8 cannot hold items=1 needles of span=2.*length >= 9"),
    (
      "multi_key",
      {"items": 257, "length": 9999},
      r"items=257 are more than there are words of span=2",
    ),
    ("multi_value", {"length": 10}, r"length=10 cannot hold items=3 .*length >= 11"),
    ("multi_query", {"hops": 1}, r"hops=1 means nothing to multi_query"),
    ("variable_tracking", {"vocabulary": 20}, r"vocabulary=20 has too few variables for 6 assignments.*>= 21"),
    ("variable_tracking", {"length": 25}, r"length=25 cannot hold 6 assignments.*>= 26"),
    ("frequency", {"vocabulary": 3}, r"vocabulary=3 has no two tokens"),
  ],
)
def test_what_cannot_be_generated_is_refused_by_flag(name, knobs, message):
  with pytest.raises(ValueError, match=rf"^--config\.data\.{message}") as caught:
    generation.generate(name, knobs, sizes=SMALL)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  "name, longest, message",
  [
    ("in_context", 100, r"longest=100 is not length=32 doubled again and again; give 64 or 128, or 0"),
    ("in_context", 16, r"longest=16 is not length=32 doubled"),
    ("compression", 64, r"longest=64 means nothing to compression: the tokens that name the further places"),
  ],
)
def test_lengths_that_cannot_be_tested_are_refused(name, longest, message):
  with pytest.raises(ValueError, match=rf"^--config\.data\.{message}"):
    generation.generate(name, longest=longest, sizes=SMALL)


def test_a_split_of_no_examples_is_refused():
  with pytest.raises(ValueError, match=r"--config\.data\.validation=0 is less than 1"):
    generation.generate("parity", sizes=(10, 0, 10))


DIGESTS = {
  "in_context": "569e0745bf05133e",
  "fuzzy": "ac90d4648488668d",
  "noisy": "80158d98f2a3dfce",
  "selective_copy": "500da393a7de4fbc",
  "compression": "3655c40378493529",
  "memorization": "d0f17777e116a117",
  "induction": "0b404b710f4bab4e",
  "parity": "0e13ca549a1ba1e5",
  "needle": "9457a55f3911efa9",
  "multi_key": "c4bdcd72a9c450ec",
  "multi_value": "32f3d727b1a6fcda",
  "multi_query": "1372239bbbedcdad",
  "variable_tracking": "abdb9f33f2ac3544",
  "frequency": "6504dac37ec673d7",
}


@pytest.mark.parametrize("name", generation.MECHANISMS)
def test_the_usual_sizes_make_what_they_made_when_results_were_written(name):
  assert generation.generate(name, sizes=SMALL).digests["test"] == DIGESTS[name]
