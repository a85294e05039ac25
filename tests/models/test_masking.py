"""Which tokens are hidden, and how often."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.models import bert

SPECIALS, VOCABULARY, MASK = (0, 1, 2, 4), 12, 4
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, VOCABULARY, (400, 30)), jnp.int32)
LENGTH = jnp.asarray(np.random.default_rng(1).integers(0, 31, 400), jnp.int32)
draw = jax.jit(bert.mask_tokens, static_argnums=(3, 4, 5, 6))


def drawn(seed=0, rate=0.15):
  arrays = draw(jax.random.key(seed), TOKENS, LENGTH, SPECIALS, VOCABULARY, MASK, rate)
  return tuple(map(np.asarray, arrays))


@pytest.fixture(scope="module")
def eligible():
  return (np.arange(30)[None] < np.asarray(LENGTH)[:, None]) & ~np.isin(TOKENS, SPECIALS)


@pytest.mark.parametrize("rate", [0.15, 0.2, 1.0])
def test_of_each_row_the_share_is_chosen_rounded_up_and_never_a_special_token_or_padding(rate, eligible):
  masked, chosen = drawn(rate=rate)
  assert not np.any(chosen & ~eligible)
  count = eligible.sum(axis=1)
  np.testing.assert_array_equal(chosen.sum(axis=1), [-(-int(n) * round(100 * rate) // 100) for n in count])
  np.testing.assert_array_equal(masked[~chosen], np.asarray(TOKENS)[~chosen])


def test_a_chosen_token_is_masked_in_8_of_10_cases_random_in_1_and_itself_in_1(eligible):
  masked, chosen = drawn(rate=1.0)
  shown, true = masked[chosen], np.asarray(TOKENS)[chosen]
  hidden, same = shown == MASK, shown == true
  assert len(shown) == eligible.sum() > 3000
  chance = 1 / (VOCABULARY - len(SPECIALS))  # of a random token to be the true one
  for cases, share in ((hidden, 0.8), (same, 0.1 + 0.1 * chance), (~hidden & ~same, 0.1 * (1 - chance))):
    assert abs(cases.mean() - share) < 4 * np.sqrt(share * (1 - share) / len(shown))
  others = shown[~hidden & ~same]
  assert set(others) == set(range(VOCABULARY)) - set(SPECIALS)


def test_every_place_of_a_row_is_chosen_alike_often(eligible):
  counts = sum(drawn(seed)[1].astype(int) for seed in range(20)).sum(axis=0)
  expected = sum(
    np.where(row, -(-int(row.sum()) * 15 // 100) / max(row.sum(), 1), 0) for row in eligible
  )  # of each column
  assert np.all(np.abs(counts - 20 * expected) < 5 * np.sqrt(20 * expected + 1))


def test_the_draw_is_a_function_of_its_key():
  chex.assert_trees_all_equal(drawn(3), drawn(3))
  assert not np.array_equal(drawn(3)[1], drawn(4)[1])


def test_a_row_without_an_eligible_token_stays_whole():
  tokens = jnp.array([[1, 2, 4, 0, 5]])
  masked, chosen = draw(jax.random.key(0), tokens, jnp.array([4]), SPECIALS, VOCABULARY, MASK)
  chex.assert_trees_all_equal(masked, tokens)
  assert not chosen.any()


@pytest.mark.parametrize(("rate", "vocabulary"), [(0.0, 12), (1.1, 12), (0.15, 4)])
def test_a_rate_or_a_vocabulary_that_leaves_nothing_is_refused(rate, vocabulary):
  with pytest.raises(ValueError, match=r"rate=|vocabulary of 4"):
    bert.mask_tokens(jax.random.key(0), TOKENS, LENGTH, SPECIALS, vocabulary, MASK, rate)
