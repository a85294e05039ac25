import numpy as np
import pytest

from attention_lab.data import recall
from attention_lab.data.dataset import SPLITS
from attention_lab.data.generated import accuracy

SMALL = (2000, 300, 500)
CELLS = [
  {},
  {"filler": "blank"},
  {"power": 1.0, "pairs": 8},
  {"vocabulary": 64, "length": 48, "pairs": 3, "seed": 5},
  {"vocabulary": 13, "length": 21, "pairs": 5},
]


@pytest.fixture(scope="module", params=CELLS, ids=str)
def cell(request):
  parameters = {"vocabulary": 32, "length": 32, "pairs": 4, "filler": "random"} | request.param
  return parameters, recall.generate(**request.param, sizes=SMALL)


def test_a_solver_that_reads_only_the_tokens_answers_everything_and_nothing_else(cell):
  parameters, source = cell
  for split in SPLITS:
    arrays = source.splits[split].arrays
    np.testing.assert_array_equal(recall.oracle(arrays["tokens"], parameters["pairs"]), arrays["targets"])
  assert source.controls["oracle"] == 1


def test_the_shuffled_control_leaves_the_solver_at_chance(cell):
  parameters, source = cell
  train = source.splits["train"]
  control = recall.shuffled(train)
  answers = recall.oracle(train.arrays["tokens"], parameters["pairs"])
  asked = 2000 * parameters["pairs"]
  chance = source.metadata["chance"]
  assert abs(accuracy(answers, control.arrays["targets"]) - chance) < 5 * (chance / asked) ** 0.5
  np.testing.assert_array_equal(control.arrays["targets"] >= 0, train.arrays["targets"] >= 0)
  held_out = source.metadata["sizes"]["test"] * parameters["pairs"]
  assert abs(source.controls["oracle on shuffled answers"] - chance) < 5 * (chance / held_out) ** 0.5


def test_each_query_is_answered_by_exactly_one_pair_that_stands_before_it(cell):
  parameters, source = cell
  context, half = 2 * parameters["pairs"], parameters["vocabulary"] // 2
  arrays = source.splits["test"].arrays
  for tokens, targets in zip(arrays["tokens"].tolist(), arrays["targets"].tolist(), strict=True):
    pairs = dict(zip(tokens[0:context:2], tokens[1:context:2], strict=True))
    asked = [i for i, target in enumerate(targets) if target >= 0]
    assert len(pairs) == len(set(pairs.values())) == len(asked) == parameters["pairs"]
    assert all(1 <= key < half <= value < parameters["vocabulary"] for key, value in pairs.items())
    assert all(i >= context and pairs[tokens[i]] == targets[i] for i in asked)
    for i in range(context, len(tokens)):
      assert (tokens[i] in pairs) == (i in asked)
      assert not (i - 1 in asked and tokens[i] >= half)


def test_blank_filler_is_token_0_and_random_filler_is_every_token():
  for filler, expected in (("blank", [0]), ("random", list(range(32)))):
    arrays = recall.generate(filler=filler, sizes=SMALL).splits["train"].arrays
    assert np.unique(arrays["tokens"][:, 8:][arrays["targets"][:, 8:] < 0]).tolist() == expected


def test_no_example_occurs_twice_within_or_across_splits_though_hardly_more_exist():
  source = recall.generate(vocabulary=6, length=8, pairs=2, filler="blank", sizes=(12, 5, 7))
  rows = np.concatenate([source.splits[split].arrays["tokens"] for split in SPLITS])
  assert len(np.unique(rows, axis=0)) == len(rows) == 24
  with pytest.raises(ValueError, match=r"--config\.data\.train=13 is more than"):
    recall.generate(vocabulary=6, length=8, pairs=2, filler="blank", sizes=(13, 5, 7))


def test_gaps_follow_the_power_law_and_are_uniform_at_power_1():
  def first_gaps(power):
    arrays = recall.generate(pairs=1, power=power, sizes=(20_000, 1, 1)).splits["train"].arrays
    return np.bincount((np.argmax(arrays["targets"] >= 0, axis=1) - 2) // 2, minlength=15) / 20_000

  for power in (0.01, 1.0):
    law = np.arange(1, 16) ** (power - 1)
    np.testing.assert_allclose(first_gaps(power), law / law.sum(), atol=0.02)


def test_keys_values_and_their_order_are_uniform():
  tokens = recall.generate(vocabulary=16, length=16, pairs=3, sizes=(20_000, 1, 1)).splits["train"].arrays["tokens"]
  for column in range(6):
    counts = np.bincount(tokens[:, column], minlength=16)[slice(8, 16) if column % 2 else slice(1, 8)]
    assert counts.sum() == 20_000
    np.testing.assert_allclose(counts / 20_000, 1 / len(counts), atol=0.015)


def test_filler_that_is_not_a_key_is_uniform_over_the_rest():
  ranks = np.arange(6)[None].repeat(2, axis=0)
  np.testing.assert_array_equal(
    recall._avoid(ranks, np.array([[5, 1, 3], [2, 1, 8]]), 9), [[0, 2, 4, 6, 7, 8], [0, 3, 4, 5, 6, 7]]
  )


def test_the_same_call_makes_the_same_data_and_held_out_splits_do_not_depend_on_the_size_of_train():
  first, again = recall.generate(sizes=SMALL), recall.generate(sizes=SMALL)
  longer, other = recall.generate(sizes=(3000, 300, 500)), recall.generate(sizes=SMALL, seed=1)
  assert first.digests == again.digests
  assert first.digests["test"] == longer.digests["test"] != other.digests["test"]
  assert first.digests["validation"] == longer.digests["validation"]


def test_the_default_cell_is_what_it_was_when_results_were_written():
  assert recall.generate(sizes=SMALL).digests["test"] == "79c60415424a2fb3"


@pytest.mark.parametrize(
  ("parameters", "message"),
  [
    ({"pairs": 0}, r"--config\.data\.pairs=0"),
    ({"vocabulary": 8}, r"--config\.data\.vocabulary=8 has 3 keys .*vocabulary >= 10"),
    ({"length": 15}, r"--config\.data\.length=15 .*length >= 16"),
    ({"power": 0.0}, r"--config\.data\.power=0\.0"),
    ({"filler": "noise"}, r"--config\.data\.filler=noise .*random, blank"),
    ({"sizes": (10, 0, 10)}, r"--config\.data\.validation=0"),
    ({"vocabulary": 4, "length": 4, "pairs": 1}, r"--config\.data\.test=3000 is more than"),
  ],
)
def test_what_cannot_be_generated_is_refused_by_flag(parameters, message):
  with pytest.raises(ValueError, match=message):
    recall.generate(**parameters)
