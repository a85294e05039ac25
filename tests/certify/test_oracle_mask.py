"""The loop form of the mask law against literal tables: rows are queries, columns are keys."""

import itertools

import numpy as np
import pytest

from attention_lab.certify.oracle import readable

FIVE = np.arange(5)


def table(text):
  return np.array([[c == "1" for c in row] for row in text.split()])


@pytest.mark.parametrize(
  ("constraints", "expected"),
  [
    ({}, "11111 11111 11111 11111 11111"),
    ({"causal": True}, "10000 11000 11100 11110 11111"),
    ({"causal": False}, "11111 11111 11111 11111 11111"),
    ({"window": 1}, "10000 01000 00100 00010 00001"),
    ({"window": 2}, "11000 11100 01110 00111 00011"),
    ({"window": (3, 1)}, "10000 11000 11100 01110 00111"),
    ({"window": (1, 3)}, "11100 01110 00111 00011 00001"),
    ({"window": (2, 3)}, "11100 11110 01111 00111 00011"),
    ({"causal": True, "window": 3}, "10000 11000 11100 01110 00111"),
    ({"causal": True, "window": (2, 3)}, "10000 11000 01100 00110 00011"),
    ({"causal": True, "prefix": 3}, "11100 11100 11100 11110 11111"),
    ({"causal": True, "prefix": 0}, "10000 11000 11100 11110 11111"),
    ({"causal": True, "prefix": 3, "window": 2}, "11000 11100 01100 00110 00011"),
    ({"q_valid": [1, 1, 1, 0, 0]}, "11111 11111 11111 00000 00000"),
    ({"kv_valid": [1, 1, 1, 0, 0]}, "11100 11100 11100 11100 11100"),
    ({"q_segments": [0, 0, 1, 1, 2], "k_segments": [0, 0, 1, 1, 2]}, "11000 11000 00110 00110 00001"),
    ({"q_segments": [0, 0, 1, 1, 2], "k_segments": [2, 1, 0, 3, 0]}, "00101 00101 01000 01000 10000"),
    ({"explicit": np.eye(5, dtype=bool)}, "10000 01000 00100 00010 00001"),
    ({"causal": True, "explicit": np.eye(5, dtype=bool)[::-1]}, "00000 00000 00100 01000 10000"),
  ],
)
def test_a_constraint_is_its_literal_table(constraints, expected):
  np.testing.assert_array_equal(readable(constraints, FIVE, FIVE)[0], table(expected))


def test_positions_and_not_indices_decide():
  i, j = np.array([7, 5, 6]), np.array([6, -1, 5, 7])
  np.testing.assert_array_equal(readable({"causal": True}, i, j)[0], table("1011 0010 1010"))
  np.testing.assert_array_equal(readable({"window": 2}, i, j)[0], table("1001 1010 1011"))
  np.testing.assert_array_equal(readable({"causal": True, "prefix": 6}, i, j)[0], table("1011 0010 1010"))


def test_an_empty_slot_is_never_read():
  i, j = np.array([0, 1]), np.array([-1, 0, -1])
  for constraints in ({}, {"causal": True}, {"window": 9}, {"causal": True, "prefix": 2}, {"explicit": True}):
    assert not readable(constraints, i, j)[0][:, [0, 2]].any()
    assert readable(constraints, i, j)[0][:, 1].all()


def test_an_explicit_mask_may_differ_from_head_to_head_or_broadcast():
  explicit = np.stack([np.eye(5, dtype=bool), np.tri(5, dtype=bool)])
  np.testing.assert_array_equal(readable({"explicit": explicit}, FIVE, FIVE, heads=2), explicit)
  keys = np.array([1, 0, 1, 1, 0], bool)
  for shape in ((5,), (1, 5), (1, 1, 5)):
    np.testing.assert_array_equal(readable({"explicit": keys.reshape(shape)}, FIVE, FIVE, 2), np.tile(keys, (2, 5, 1)))


def test_constraints_given_together_are_the_conjunction_of_each_alone():
  alone = [
    {"causal": True, "prefix": 2},
    {"window": (3, 2)},
    {"q_valid": [1, 1, 0, 1, 1]},
    {"kv_valid": [1, 0, 1, 1, 1]},
    {"q_segments": [0, 0, 0, 1, 1], "k_segments": [0, 0, 0, 1, 1]},
  ]
  for a, b in itertools.combinations(alone, 2):
    both = readable(a, FIVE, FIVE) & readable(b, FIVE, FIVE)
    np.testing.assert_array_equal(readable(a | b, FIVE, FIVE), both)


@pytest.mark.parametrize(
  ("constraints", "message"),
  [
    ({"windows": 3}, "unknown constraints"),
    ({"prefix": 3}, "belongs to causal"),
    ({"q_segments": [0] * 5}, "come together"),
  ],
)
def test_a_malformed_constraint_is_refused_by_name(constraints, message):
  with pytest.raises(ValueError, match=message):
    readable(constraints, FIVE, FIVE)
