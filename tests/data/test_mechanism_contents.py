"""What the examples of each generated mechanism hold, read by eye and finger: no solver of the package is used."""

import collections

import numpy as np
import pytest

from attention_lab.data.dataset import SPLITS
from attention_lab.data.mechanisms import base, generation


def rows(name, knobs=None):
  source = generation.generate(name, knobs, sizes=(400, 1, 1))
  arrays = source.splits["train"].arrays
  return zip(arrays["tokens"].tolist(), arrays["targets"].tolist(), strict=True)


def test_induction_asks_for_the_follower_of_its_mark_and_frequency_for_the_one_commonest_token():
  for tokens, targets in rows("induction"):
    position = tokens.index(base.ASK)
    assert tokens.count(base.ASK) == 2
    assert targets == [-1] * (len(tokens) - 1) + [tokens[position + 1]]
  for tokens, targets in rows("frequency"):
    (first, most), (_, second) = collections.Counter(tokens[:-1]).most_common(2)
    assert most > second
    assert targets == [-1] * (len(tokens) - 1) + [first]


def test_parity_is_asked_at_every_bit():
  for tokens, targets in rows("parity"):
    assert targets == [1 + sum(token == 2 for token in tokens[: position + 1]) % 2 for position in range(len(tokens))]


def test_memorized_values_are_one_map_in_all_splits_and_seeds_and_stand_in_no_example():
  matches = set()
  for seed in (0, 7):
    source = generation.generate("memorization", sizes=(400, 50, 50), seed=seed)
    for split in SPLITS:
      arrays = source.splits[split].arrays
      keys, values = arrays["tokens"][:, 0::2], arrays["targets"][:, 1::2]
      assert not np.isin(values, arrays["tokens"]).any()
      matches |= set(zip(keys.reshape(-1).tolist(), values.reshape(-1).tolist(), strict=True))
  assert len(matches) == len({key for key, _ in matches}) == len({value for _, value in matches}) == 128


def test_an_exact_share_of_the_pairs_is_noise_and_noise_is_never_asked():
  shape = generation.resolve_shape("noisy", {"noise": 0.5})
  noise = base.parts(shape.vocabulary, 3)[2]
  for tokens, targets in rows("noisy", {"noise": 0.5}):
    noisy = [token in noise for token in tokens]
    assert sum(noisy) == shape.length // 2
    assert noisy[0::2] == noisy[1::2]
    assert not any(is_noise and target >= 0 for is_noise, target in zip(noisy, targets, strict=True))


def test_compression_asks_for_every_place_once_in_random_order():
  orders = set()
  for tokens, targets in rows("compression"):
    size = tokens.index(base.ASK)
    asked = [token - base.FIRST for token in tokens[size + 1 : -1]]
    assert sorted(asked) == list(range(size)) == list(range(15))
    assert targets == [-1] * (size + 1) + [tokens[position] for position in asked] + [-1]
    orders.add(tuple(asked))
  assert len(orders) > 350


def occurrences(word, tokens):
  return [position for position in range(len(tokens)) if tokens[position : position + len(word)] == word]


@pytest.mark.parametrize("name, questions", [("needle", 1), ("multi_key", 1), ("multi_query", 4)])
def test_each_asked_key_stands_once_in_the_haystack_with_its_value_behind_it(name, questions):
  chosen = collections.Counter()
  for tokens, targets in rows(name, {"span": 2, "length": 48}):
    room = tokens.index(base.ASK)
    assert len(tokens) == room + 1 + 3 * questions
    expected = [-1] * len(tokens)
    for start in range(room + 1, len(tokens), 3):  # a key of two tokens and the first of its value
      (position,) = occurrences(tokens[start : start + 2], tokens[:room])
      chosen[position] += 1
      expected[start + 1 : start + 3] = tokens[position + 2 : position + 4]
      assert tokens[start + 2] == tokens[position + 2]
    assert targets == expected
  assert len(chosen) > 20


def test_all_values_of_the_one_key_are_asked_in_the_order_in_which_they_stand():
  for tokens, targets in rows("multi_value"):
    room = tokens.index(base.ASK)
    matches = occurrences(tokens[room + 1 : room + 2], tokens[:room])
    assert targets == [-1] * (room + 1) + [tokens[position + 1] for position in matches]
    assert len(matches) == 3


@pytest.mark.parametrize("hops", [1, 3])
def test_every_variable_of_chains_as_long_as_said_is_asked_and_their_assignments_stand_in_order(hops):
  for tokens, targets in rows("variable_tracking", {"items": 2, "hops": hops, "vocabulary": 30, "length": 40}):
    room = tokens.index(base.ASK)
    assigned = {tokens[mark - 1]: (mark, tokens[mark + 1]) for mark in occurrences([base.FIRST], tokens)}
    assert sorted(tokens[room + 1 :]) == sorted(assigned)
    answers, depths = [], []
    for asked in tokens[room + 1 :]:
      name, last, looked_up = asked, room, 0
      while name in assigned:
        mark, name = assigned[name]
        assert mark < last
        last, looked_up = mark, looked_up + 1
      depths.append(looked_up)
      answers.append(name)
    assert targets == [-1] * (room + 1) + answers
    assert sorted(depths) == sorted(2 * list(range(1, hops + 2)))
    assert len(set(answers)) == 2


def test_words_of_fuzzy_recall_have_all_lengths_and_their_first_occurrence_is_not_asked():
  widths = collections.Counter()
  for tokens, targets in rows("fuzzy", {"span": 3, "length": 60}):
    runs = "".join("v" if token >= 18 else "e" if token >= 10 else "k" for token in tokens if token)
    for pair in runs.replace("ve", "v e").replace("vk", "v k").split():
      widths[pair] += 1
    first = next(position for position, target in enumerate(targets) if target >= 0)
    assert "v" in runs[:first]
  assert set(widths) == {"k" * inside + "e" + "v" * value for inside in range(3) for value in range(1, 4)}
