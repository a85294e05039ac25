import collections
import math

import numpy as np
import pytest

from attention_lab.data import ngram

VOCABULARY = 11


def tokens(count, seed=0, top=VOCABULARY - 2):
  """A stream with structure: each token is near its predecessor, and two ids never occur."""
  rng = np.random.default_rng(seed)
  return np.cumsum(rng.integers(0, 3, count)) % top


def textbook(stream, order, vocabulary, context, word):
  """Interpolated Kneser-Ney in loops over dictionaries."""
  grams = lambda n: [tuple(stream[i : i + n]) for i in range(len(stream) - n + 1)]
  p = 1 / vocabulary
  for n in range(1, order + 1):
    if n == order:
      counts = collections.Counter(grams(n))
    else:
      counts = collections.Counter(gram[1:] for gram in set(grams(n + 1)))
    ones, twos = (sum(count == k for count in counts.values()) for k in (1, 2))
    discount = ones / (ones + 2 * twos) if ones and twos else 0.5
    history = tuple(context[len(context) - n + 1 :])
    if len(history) < n - 1:
      break
    after = {gram[-1]: count for gram, count in counts.items() if gram[:-1] == history}
    if after:
      total = sum(after.values())
      p = max(after.get(word, 0) - discount, 0) / total + discount * len(after) / total * p
  return p


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_the_model_is_the_textbooks_loop(order):
  stream, rng = tokens(60), np.random.default_rng(1)
  model = ngram.KneserNey(stream, order, VOCABULARY)
  for _ in range(12):
    context = rng.integers(0, VOCABULARY, rng.integers(0, 6))
    expected = [textbook(stream.tolist(), order, VOCABULARY, context.tolist(), word) for word in range(VOCABULARY)]
    np.testing.assert_allclose(model.distribution(context), expected, rtol=1e-12)


@pytest.mark.parametrize("order", [1, 2, 5])
def test_probabilities_sum_to_one_after_seen_and_unseen_contexts(order):
  stream, rng = tokens(400), np.random.default_rng(2)
  model = ngram.KneserNey(stream, order, VOCABULARY)
  starts = rng.integers(0, len(stream) - 6, 20)
  contexts = [stream[s : s + 5] for s in starts] + list(rng.integers(0, VOCABULARY, (20, 5))) + [stream[:0], stream[:2]]
  for context in contexts:
    distribution = model.distribution(context)
    assert distribution.min() > 0
    assert math.isclose(distribution.sum(), 1, rel_tol=1e-12)


def test_the_loss_of_a_stream_is_that_of_its_tokens_one_by_one():
  model = ngram.KneserNey(tokens(300), 4, VOCABULARY)
  test = tokens(30, seed=5, top=VOCABULARY)
  one_by_one = [-math.log(model.distribution(test[:i])[test[i]]) for i in range(1, len(test))]
  np.testing.assert_allclose(model.nll(test), one_by_one, rtol=1e-12)


def test_a_vocabulary_whose_fifth_power_overflows_64_bits_changes_nothing_but_the_uniform_floor():
  stream = tokens(200)
  small, large = (ngram.KneserNey(stream, 5, vocabulary) for vocabulary in (VOCABULARY, 50_000))
  for context in (stream[:7], stream[50:55], np.array([3, 3, 3, 3])):
    gap = small.distribution(context) - large.distribution(context)[:VOCABULARY]
    assert np.ptp(gap) < 1e-15
    assert gap[0] > 0


def test_bits_per_byte_are_summed_over_all_tokens_but_the_first_and_computed_once():
  train, test = tokens(300), tokens(50, seed=3)
  ngram._bits_per_byte.cache_clear()
  bits = ngram.bits_per_byte(train, test, 100, 3, VOCABULARY)
  assert math.isclose(bits, ngram.KneserNey(train, 3, VOCABULARY).nll(test).sum() / math.log(2) / 100)
  assert ngram.bits_per_byte(train.copy(), test.copy(), 100, 3, VOCABULARY) == bits
  assert ngram._bits_per_byte.cache_info().misses == 1


def test_a_stream_shorter_than_the_order_is_refused():
  with pytest.raises(ValueError, match="order 5"):
    ngram.KneserNey(np.arange(3), 5, VOCABULARY)
