"""Recall in the manner of MAD: what followed a key before, in this example or in every one.

Poli et al. 2024, section 3, in the multi-query form of its benchmark's settings: keys and values fill the sequence,
keys are drawn again and again, and from its second time on each key is asked for its value, which is the next token.
Departures: as many different keys as `items` says, where MAD takes all there are; of `noisy` an exact share of pairs is
noise, so that something is always asked. `memorization` is MAD's: keys, each with ASK behind it, where its value is
asked; the map from keys to values is one for all splits and seeds, and stands in no example.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Int

from attention_lab.data.generated import distinct
from attention_lab.data.mechanisms import base
from attention_lab.data.mechanisms.base import Examples, Mechanism, Shape

_MAP = 12345  # seed of the map of `memorization`, the same for all splits and runs


def _alphabets(shape: Shape) -> tuple[range, ...]:
  """The alphabets of keys, values, and for a noisy shape the noise."""
  return base.parts(shape.vocabulary, 3 if shape.noise else 2)


def _pairs(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  keys, values, *noise = _alphabets(shape)
  slots = shape.length // 2
  key = keys.start + distinct(rng, count, len(keys), shape.items)
  answers = base.drawn(rng, values, (count, shape.items))
  which = rng.integers(0, shape.items, (count, slots))
  real = np.ones((count, slots), bool)
  if noise:
    np.put_along_axis(real, base.places(rng, count, slots, round(shape.noise * slots)), False, axis=1)
  tokens = np.empty((count, shape.length), np.int64)
  tokens[:, 0::2], tokens[:, 1::2] = np.take_along_axis(key, which, 1), np.take_along_axis(answers, which, 1)
  if noise:
    tokens = np.where(np.repeat(real, 2, axis=1), tokens, base.drawn(rng, noise[0], tokens.shape))
  targets = base.unasked(tokens)
  targets[:, 0::2] = np.where(again(which, real, shape.items), tokens[:, 1::2], -1)
  return tokens, targets


def again(which: Int[np.ndarray, "B P"], real: Bool[np.ndarray, "B P"], items: int) -> Bool[np.ndarray, "B P"]:
  """True where the item at a real position, one of `items`, stood at a real position before."""
  rows, seen = np.arange(len(which)), np.zeros((len(which), items), bool)
  repeated = np.zeros_like(real)
  for position in range(which.shape[1]):
    repeated[:, position] = seen[rows, which[:, position]] & real[:, position]
    seen[rows, which[:, position]] |= real[:, position]
  return repeated


def _recalled(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: each key is answered with the token that followed it before."""
  keys, rows = _alphabets(shape)[0], np.arange(len(tokens))
  memory, targets = np.full((len(tokens), shape.vocabulary), -1, np.int64), base.unasked(tokens)
  for position in range(tokens.shape[1] - 1):
    key = tokens[:, position]
    is_key = (key >= keys.start) & (key < keys.stop)
    targets[:, position] = np.where(is_key, memory[rows, key], -1)
    memory[rows[is_key], key[is_key]] = tokens[is_key, position + 1]
  return targets


def _pair_rules(shape: Shape) -> dict[str, bool]:
  keys, values = _alphabets(shape)[:2]
  pairs = shape.length // 2 - round(shape.noise * (shape.length // 2))
  rules = base.least("items", shape.items, 1, "are no keys")
  rules[f"length={shape.length} is odd, and the sequence is made of pairs; give an even one"] = shape.length % 2 == 0
  rules[f"items={shape.items} are more than the {len(keys)} keys of vocabulary={shape.vocabulary}; give fewer"] = (
    len(keys) >= shape.items
  )
  rules[f"vocabulary={shape.vocabulary} has no two values; give a larger one"] = len(values) >= 2
  rules[f"items={shape.items} leave none of the {pairs} pairs of length={shape.length} to ask; give a longer one"] = (
    pairs > shape.items
  )
  return rules


def _noise_rules(shape: Shape) -> dict[str, bool]:
  return {f"noise={shape.noise} is no fraction between 0 and 1": 0 < shape.noise < 1} | _pair_rules(shape)


def _lookups(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  tokens = np.full((count, shape.length), base.ASK, np.int64)
  tokens[:, 0::2] = base.drawn(rng, base.parts(shape.vocabulary, 2)[0], (count, shape.length // 2))
  return tokens, _looked_up(tokens, shape)


def _looked_up(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets by the map, which is no part of the example: the only solver that knows more than the tokens."""
  keys, values = base.parts(shape.vocabulary, 2)
  value = np.random.default_rng(_MAP).permutation(len(values))[: len(keys)] + values.start
  targets = base.unasked(tokens)
  targets[:, 1::2] = value[tokens[:, 0::2] - keys.start]
  return targets


def _lookup_rules(shape: Shape) -> dict[str, bool]:
  rules = base.least("vocabulary", shape.vocabulary, base.FIRST + 4, "has no two keys and two values")
  return (
    rules
    | {f"length={shape.length} must be even, a key and a mark at a time": shape.length % 2 == 0}
    | base.least("length", shape.length, 2, "asks nothing")
  )


_PAIRS = frozenset({"length", "vocabulary", "items"})
IN_CONTEXT = Mechanism(
  usual=Shape(length=32, vocabulary=34, items=6),
  reads=_PAIRS,
  make=_pairs,
  solve=_recalled,
  answers=lambda shape: _alphabets(shape)[1],
  rules=_pair_rules,
)
NOISY = dataclasses.replace(
  IN_CONTEXT, usual=Shape(length=32, vocabulary=50, items=6, noise=0.2), reads=_PAIRS | {"noise"}, rules=_noise_rules
)
MEMORIZATION = Mechanism(
  usual=Shape(length=32, vocabulary=258),
  reads=frozenset({"length", "vocabulary"}),
  make=_lookups,
  solve=_looked_up,
  answers=lambda shape: base.parts(shape.vocabulary, 2)[1],
  rules=_lookup_rules,
)
