"""The law of masks on all pairs, literal tables, and what is refused; the loops of the oracle say what is right."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, FULL, Mask, Positions
from attention_lab.certify import oracle

B, N, T, S = 2, 3, 5, 5
SEGMENTS = jnp.array([[0, 0, 1, 1, 2], [4, 4, 4, 4, 5]])
EXPLICIT = jnp.asarray(np.random.default_rng(0).random((B, N, T, S)) < 0.6)
FIVE = {"i": np.arange(T), "j": np.arange(S)}
ALONE = {
  "none": FULL,
  "causal": CAUSAL,
  "window": Mask(window=2),
  "window to the left": Mask(window=(3, 1)),
  "window to the right": Mask(window=(1, 3)),
  "causal window": Mask(causal=True, window=3),
  "prefix": Mask(causal=True, prefix=jnp.array([3, 0])),
  "shorter prefix": Mask(causal=True, prefix=jnp.array([1, 2])),
  "queries": Mask(q_valid=jnp.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], bool)),
  "keys": Mask(kv_valid=jnp.array([[1, 0, 1, 1, 0], [0, 0, 0, 0, 0]], bool)),
  "segments": Mask(q_segments=SEGMENTS, k_segments=SEGMENTS),
  "explicit": Mask(explicit=EXPLICIT),
  "one explicit for all": Mask(explicit=EXPLICIT[:1, :1]),
}
PAIRS = list(itertools.combinations_with_replacement(ALONE, 2))


def table(text):
  return np.array([[c == "1" for c in row] for row in text.split()])


def dense(mask, positions=Positions()):
  return np.broadcast_to(np.asarray(mask.dense(T, S, positions)), (B, N, T, S))


def loops(mask, b, i, j):
  fields = {name: getattr(mask, name) for name in oracle.CONSTRAINTS}
  arrays = {
    name: np.asarray(a)[b % len(a)] for name, a in fields.items() if a is not None and not isinstance(a, bool | tuple)
  }
  return oracle.readable(fields | arrays, i, j, heads=N)


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=[" and ".join(pair) for pair in PAIRS])
def test_two_masks_together_are_the_conjunction_of_each(a, b):
  if a == b == "segments":
    with pytest.raises(ValueError, match="two segmentations cannot be one mask"):
      ALONE[a] & ALONE[b]
    return
  for left, right in ((ALONE[a], ALONE[b]), (ALONE[b], ALONE[a])):
    np.testing.assert_array_equal(dense(left & right), dense(left) & dense(right))
    assert (left & right).names() == (left.names() | right.names()) - _lost(left, right)


def _lost(left, right):
  """A prefix relaxes one causal mask; a causal mask without a prefix takes that back."""
  plain = [m for m in (left, right) if m.causal and m.prefix is None]
  return {"prefix"} if plain and ("prefix" in left.names() | right.names()) else set()


@pytest.mark.parametrize("name", ALONE)
def test_a_mask_equals_the_loops_of_the_oracle(name):
  for b in range(B):
    np.testing.assert_array_equal(dense(ALONE[name])[b], loops(ALONE[name], b, **FIVE))


@pytest.mark.parametrize("name", ALONE)
def test_positions_and_not_indices_decide(name):
  i, j = np.array([7, 5, 6, 0, 9]), np.array([6, -1, 5, 7, 0])
  readable = dense(ALONE[name], Positions(jnp.asarray(i)[None], jnp.asarray(j)[None]))
  for b in range(B):
    np.testing.assert_array_equal(readable[b], loops(ALONE[name], b, i, j))
  assert not readable[..., 1].any()


@pytest.mark.parametrize(
  ("mask", "expected"),
  [
    (FULL, "11111 11111 11111 11111 11111"),
    (CAUSAL, "10000 11000 11100 11110 11111"),
    (Mask(window=1), "10000 01000 00100 00010 00001"),
    (Mask(window=2), "11000 11100 01110 00111 00011"),
    (Mask(window=(3, 1)), "10000 11000 11100 01110 00111"),
    (Mask(window=(1, 3)), "11100 01110 00111 00011 00001"),
    (Mask(causal=True, window=3), "10000 11000 11100 01110 00111"),
    (Mask(causal=True, window=(2, 3)), "10000 11000 01100 00110 00011"),
    (Mask(causal=True, prefix=jnp.array([3])), "11100 11100 11100 11110 11111"),
    (Mask(causal=True, prefix=jnp.array([3]), window=2), "11000 11100 01100 00110 00011"),
  ],
)
def test_a_pattern_is_its_literal_table(mask, expected):
  np.testing.assert_array_equal(np.asarray(mask.dense(5, 5))[0, 0], table(expected))


def test_a_prefix_does_not_relax_segments():
  mask = Mask(causal=True, prefix=jnp.array([3, 3]), q_segments=SEGMENTS, k_segments=SEGMENTS)
  expected = table("11000 11000 00100 00110 00001")
  np.testing.assert_array_equal(np.asarray(mask.dense(5, 5))[0, 0], expected)


def test_a_window_of_one_number_is_the_same_to_both_sides():
  assert Mask(window=3) == Mask(window=(3, 3))
  assert Mask(window=3) & Mask(window=(2, 5)) == Mask(window=(2, 3))


def test_names_are_the_constraints_that_are_present():
  assert FULL.names() == frozenset()
  assert ALONE["prefix"].names() == {"causal", "prefix"}
  assert ALONE["segments"].names() == {"segments"}
  assert Mask(causal=False).names() == frozenset()


def test_a_mask_passes_through_jit_with_its_pattern_known():
  mask = ALONE["prefix"] & ALONE["keys"] & Mask(window=2)
  traced = jax.jit(lambda mask: mask.dense(T, S))(mask)
  np.testing.assert_array_equal(np.asarray(traced), np.asarray(mask.dense(T, S)))
  assert jax.tree.structure(mask) != jax.tree.structure(ALONE["prefix"] & ALONE["keys"])


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    ({"window": 0}, "window=0 must be at least 1"),
    ({"window": (3, 0)}, r"window=\(3, 0\) must be at least 1"),
    ({"prefix": jnp.array([2])}, "set causal=True"),
    ({"q_segments": SEGMENTS}, "both q_segments and k_segments"),
    ({"k_segments": SEGMENTS}, "both q_segments and k_segments"),
  ],
)
def test_a_mask_without_a_meaning_is_refused(fields, message):
  with pytest.raises(ValueError, match=message):
    Mask(**fields)
