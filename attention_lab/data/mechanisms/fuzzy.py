"""Fuzzy recall in the manner of MAD: keys and values are words of several tokens.

Poli et al. 2024, section 3: words of 1 … `span` tokens, keys drawn again and again, and from its second time on each
key is asked for its value, token by token, with the tokens before given. Departures: in MAD one key may begin another,
so that what is asked is not determined. Here a key is letters that stand inside keys and a last one of another
alphabet, so that it is read in one way; the letters of values are a third alphabet. Of `items` keys two may be equal,
and are one. Only whole pairs stand in a sequence, and what is left of its length is PAD.
"""

import numpy as np
from jaxtyping import Int

from attention_lab.data.mechanisms import base
from attention_lab.data.mechanisms.base import Examples, Mechanism, Shape
from attention_lab.data.mechanisms.recalls import again


def _letters(shape: Shape) -> tuple[range, range, range]:
  """The alphabets of letters inside keys, letters that end keys, and letters of values."""
  inside, ends, *values = base.parts(shape.vocabulary, 4)
  return inside, ends, range(values[0].start, values[-1].stop)


def _fuzzy(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  inside, ends, values = _letters(shape)
  B, P, S, T = count, shape.items, shape.span, shape.length
  key, value = (rng.integers(1, S + 1, (B, P, 1)) for _ in range(2))
  letters = [base.drawn(rng, alphabet, (B, P, 2 * S)) for alphabet in (inside, ends, values)]
  column = np.arange(2 * S)
  block = np.select([column < key - 1, column == key - 1, column < key + value], letters, 0)
  code = (np.where(column < key, block, 0) * shape.vocabulary ** (column % S)).sum(axis=-1)
  first = (code[:, :, None] == code[:, None, :]).argmax(axis=-1)  # equal keys are one key, with one value
  which = np.take_along_axis(first, rng.integers(0, P, (B, T // 2)), axis=1)
  width = np.take_along_axis((key + value)[..., 0], which, axis=1)
  stop = np.cumsum(width, axis=1)
  return _laid(block, key[..., 0], which, stop, T)


def _laid(block: np.ndarray, key: np.ndarray, which: np.ndarray, stop: np.ndarray, T: int) -> Examples:
  """The blocks of `which` one behind the other as far as whole ones fit; the second time a block's value is asked."""
  B, P, W = block.shape
  whole = stop <= T
  marks = np.zeros((B, T + 1), np.int64)
  rows, slots = np.nonzero(whole)
  np.add.at(marks, (rows, stop[rows, slots]), 1)
  slot = np.minimum(np.cumsum(marks, axis=1)[:, :T], which.shape[1] - 1)
  begin = np.concatenate([np.zeros((B, 1), np.int64), stop[:, :-1]], axis=1)
  at = lambda array: np.take_along_axis(array, slot, axis=1)
  offset, item, inside = np.arange(T) - at(begin), at(which), at(whole)
  flat = np.concatenate([block, np.zeros((B, P, 1), np.int64)], axis=2).reshape(B, -1)
  token = lambda offset: np.take_along_axis(flat, item * (W + 1) + np.clip(offset, 0, W), axis=1)
  asked = at(again(which, whole, P)) & (offset >= np.take_along_axis(key, item, axis=1) - 1) & inside
  following = np.where(asked, token(offset + 1), 0)
  return np.where(inside, token(offset), 0), np.where(following > 0, following, -1)


def _read(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """Word by word: a key that was read before is answered with its value."""
  _, ends, values = _letters(shape)
  targets = base.unasked(tokens)
  for row, answers in zip(tokens.tolist(), targets, strict=True):
    known: dict[tuple, tuple] = {}
    key: tuple[int, ...] = ()
    value: tuple[int, ...] = ()
    for position, token in enumerate(row):
      if token == base.PAD:
        break
      if token in values:
        value += (token,)
      elif key and key[-1] in ends:
        known.setdefault(key, value)
        key, value = (token,), ()
      else:
        key += (token,)
      if key[-1] in ends and len(value) < len(known.get(key, ())):
        answers[position] = known[key][len(value)]
  return targets


def _rules(shape: Shape) -> dict[str, bool]:
  rules = base.least("items", shape.items, 1, "are no keys") | base.least("span", shape.span, 1, "is no word")
  rules |= base.least("vocabulary", shape.vocabulary, 8, "has no four alphabets of two letters")
  room = 2 * shape.span * (shape.items + 1)
  why = f"may not hold items={shape.items} pairs of words of span={shape.span} and one again"
  return rules | base.countable(shape) | base.least("length", shape.length, room, why)


FUZZY = Mechanism(
  usual=Shape(length=64, vocabulary=34, items=4, span=2),
  reads=frozenset({"length", "vocabulary", "items", "span"}),
  make=_fuzzy,
  solve=_read,
  answers=lambda shape: _letters(shape)[2],
  rules=_rules,
)
