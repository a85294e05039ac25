"""Interpolated Kneser–Ney n-grams over token ids: the reference lines of language modelling.

With h the last m−1 tokens, h′ the last m−2, c the counts of order m and N₁₊(h ·) the number of kinds that follow h:

  pₘ(w|h) = max(c(h w) − Dₘ, 0) / c(h ·) + Dₘ N₁₊(h ·) / c(h ·) · pₘ₋₁(w|h′),    p₀(w) = 1 / V

The highest order counts occurrences, each lower one the distinct tokens seen before h w (continuation counts). One
discount per order, Dₘ = n₁ / (n₁ + 2 n₂) from the counts of counts (½ where n₁ or n₂ is 0 and gives no estimate). A
context never seen passes its whole mass down, and contexts run across documents.

Kneser and Ney 1995, "Improved backing-off for M-gram language modeling", in the interpolated form of Chen and Goodman
1999, "An empirical study of smoothing techniques for language modeling", §4.1.6.
"""

import dataclasses
import functools
import math

import numpy as np
from jaxtyping import Float, Int

from attention_lab.data.dataset import digest


@dataclasses.dataclass(frozen=True)
class _Level:
  keys: np.ndarray  # sorted: id of the gram's first m-1 tokens · V + its last token
  counts: np.ndarray  # of each gram
  totals: np.ndarray  # c(h ·) of each context
  kinds: np.ndarray  # N₁₊(h ·) of each context
  discount: float


class KneserNey:
  """An n-gram model of `order` trained on one stream of token ids in [0, vocabulary)."""

  def __init__(self, tokens: Int[np.ndarray, "N"], order: int, vocabulary: int) -> None:
    if order < 1 or len(tokens) < order:
      raise ValueError(f"an n-gram of order {order} needs an order >= 1 and as many tokens; there are {len(tokens)}")
    self.order, self.vocabulary = order, vocabulary
    grams = _grams(np.asarray(tokens, np.int64), order, vocabulary)
    self._levels = []
    for m, (keys, ids, _, contexts) in enumerate(grams, start=1):
      if m == order:
        counts = np.bincount(ids, minlength=len(keys))
      else:
        suffixes = grams[m][2] + 1  # each longer gram once: the gram of this order with which it ends starts one later
        counts = np.bincount(ids[suffixes], minlength=len(keys))
      self._levels.append(_level(keys, counts, contexts, vocabulary))

  def nll(self, tokens: Int[np.ndarray, "N"]) -> Float[np.ndarray, "N-1"]:
    """−ln p of every token of a stream but the first, given up to order−1 tokens before it."""
    tokens = np.asarray(tokens, np.int64)
    padded = np.concatenate([np.full(self.order, -1), tokens])
    windows = np.lib.stride_tricks.sliding_window_view(padded, self.order)[2:]
    return -np.log(self._probability(windows[:, :-1], windows[:, -1]))

  def distribution(self, context: Int[np.ndarray, "M"]) -> Float[np.ndarray, "V"]:
    """The probabilities of every token after `context`, of which the last order−1 tokens count."""
    tokens = np.arange(self.vocabulary)
    padded = np.concatenate([np.full(self.order, -1), np.asarray(context, np.int64)])
    last = padded[len(padded) - (self.order - 1) :]
    return self._probability(np.broadcast_to(last, (len(tokens), self.order - 1)), tokens)

  def _probability(self, contexts: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """The probability of each word after each context [P, order−1], in which −1 stands for "before the stream"."""
    p = np.full(len(tokens), 1 / self.vocabulary)
    for m, level in enumerate(self._levels, start=1):
      ids = np.zeros(len(tokens), np.int64)
      for inner, column in zip(self._levels[: m - 1], range(self.order - m, self.order - 1), strict=True):
        ids = _find(inner.keys, ids, contexts[:, column], self.vocabulary)
      grams = _find(level.keys, ids, tokens, self.vocabulary)
      totals = np.where(ids >= 0, level.totals[ids], 0)
      seen, safe = totals > 0, np.maximum(totals, 1)
      counts = np.where(grams >= 0, level.counts[grams], 0)
      spare = level.discount * level.kinds[ids] / safe
      p = np.where(seen, np.maximum(counts - level.discount, 0) / safe + spare * p, p)
    return p


def bits_per_byte(
  train: Int[np.ndarray, "N"], test: Int[np.ndarray, "M"], test_bytes: int, order: int, vocabulary: int
) -> float:
  """Bits per UTF-8 byte of the stream `test` (its first token is given) under an n-gram trained on `train`.

  `test_bytes` is the size of the test text in bytes. A process computes each case once, whatever asks for it.
  """
  return _bits_per_byte(_Stream.of(train), _Stream.of(test), test_bytes, order, vocabulary)


@dataclasses.dataclass(frozen=True)
class _Stream:
  digest: str
  tokens: np.ndarray = dataclasses.field(compare=False, repr=False)

  @classmethod
  def of(cls, tokens: np.ndarray) -> "_Stream":
    return cls(digest({"tokens": tokens}), tokens)


@functools.lru_cache(maxsize=32)
def _bits_per_byte(train: _Stream, test: _Stream, test_bytes: int, order: int, vocabulary: int) -> float:
  model = KneserNey(train.tokens, order, vocabulary)
  return float(model.nll(test.tokens).sum() / math.log(2) / test_bytes)


def _grams(tokens: np.ndarray, order: int, vocabulary: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, int]]:
  """For m = 1…order: sorted keys, id of the gram that starts at each position, first start of each, contexts."""
  levels, ids, contexts = [], np.zeros(len(tokens) + 1, np.int64), 1
  for m in range(1, order + 1):
    keys, first, ids = np.unique(ids[:-1] * vocabulary + tokens[m - 1 :], return_index=True, return_inverse=True)
    levels.append((keys, ids, first, contexts))
    contexts = len(keys)
  return levels


def _level(keys: np.ndarray, counts: np.ndarray, contexts: int, vocabulary: int) -> _Level:
  owners = keys // vocabulary
  once, twice = np.sum(counts == 1), np.sum(counts == 2)
  discount = float(once / (once + 2 * twice)) if once and twice else 0.5
  totals = np.bincount(owners, weights=counts, minlength=contexts)
  kinds = np.bincount(owners, weights=counts > 0, minlength=contexts)
  return _Level(keys, counts, totals, kinds, discount)


def _find(keys: np.ndarray, ids: np.ndarray, tokens: np.ndarray, vocabulary: int) -> np.ndarray:
  """The ids of the grams (context id, word), −1 where there is no such gram."""
  wanted = np.where((ids >= 0) & (tokens >= 0), ids * vocabulary + tokens, -1)
  indices = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
  return np.where(keys[indices] == wanted, indices, -1)
