"""Needles in a haystack and chains of variables, in the manner of RULER, on tokens.

Hsieh et al. 2024, "RULER: What's the Real Context Size of Your Long-Context Language Models?", section 3. A haystack of
random tokens; in it, at random places, needles: a key and its value, words of `span` tokens of alphabets of their own.
Behind ASK stand the questions: a key once more, then its value, each token asked where the one before it is given. The
last token is never given, so that a question is not answered by leaving out what was given before.

  needle        one needle
  multi_key     `items` needles of different keys, one of them asked
  multi_value   `items` needles of one key; all their values are asked, in the order in which they stand
  multi_query   `items` needles of different keys, all of them asked, in random order

  variable_tracking   `items` chains x₀ = 5, x₁ = x₀, … with `hops` assignments from variable to variable; those of one
                      stand in order in the haystack, chains mixed at random; every variable is asked for its value

Departures: RULER writes English, takes several values in any order, and gives a value to ask for all its variables;
here each question has one answer. Keys, values and the haystack have alphabets of their own, as in MQAR, where RULER's
needles are told from its essays by their wording.
"""

import functools

import numpy as np
from jaxtyping import Int

from attention_lab.data.generated import distinct
from attention_lab.data.mechanisms import base
from attention_lab.data.mechanisms.base import Examples, Mechanism, Shape

_EQUALS = base.FIRST


def _alphabets(shape: Shape) -> tuple[range, range, range]:
  """The alphabets of keys, values and the haystack."""
  keys, values, hay = base.parts(shape.vocabulary, 3)
  return keys, values, hay


def _needles(kind: str, rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  keys, values, hay = _alphabets(shape)
  S, P = shape.span, _count(shape)
  key = base.spell(distinct(rng, count, len(keys) ** S, 1 if kind == "multi_value" else P), keys, S)
  value = base.spell(distinct(rng, count, len(values) ** S, P), values, S)
  needle = np.concatenate([np.broadcast_to(key, value.shape), value], axis=2)
  if kind == "multi_value":
    asked = np.concatenate([key[:, 0], value.reshape(count, -1)], axis=1)
    is_value = np.arange(asked.shape[1]) >= S
  else:
    order = rng.permuted(np.tile(np.arange(P), (count, 1)), axis=1)[:, : _questions(kind, P)]
    asked = np.take_along_axis(needle, order[:, :, None], axis=1).reshape(count, -1)
    is_value = np.arange(asked.shape[1]) % (2 * S) >= S
  questions = np.concatenate([np.full((count, 1), base.ASK), asked[:, :-1]], axis=1)
  column = np.arange(questions.shape[1])
  visible = (column == 0) | (column % (2 * S) > 0) | (kind == "multi_value")
  room = shape.length - int(visible.sum())
  tokens = np.concatenate([base.drawn(rng, hay, (count, room)), questions[:, visible]], axis=1)
  base.put(tokens, base.places(rng, count, room, P, 2 * S), needle)
  targets = base.unasked(tokens)
  targets[:, room:] = np.where(is_value, asked, -1)[:, visible]
  return tokens, targets


def _count(shape: Shape) -> int:
  """The number of needles."""
  return shape.items or 1


def _questions(kind: str, needles: int) -> int:
  return needles if kind == "multi_query" else 1


def _solve_needles(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: each key behind ASK is answered with all values that stood behind it in the haystack."""
  keys, S = _alphabets(shape)[0], shape.span
  targets, room = base.unasked(tokens), int((tokens[0] == base.ASK).argmax())
  for row, answers in zip(tokens.tolist(), targets, strict=True):
    known: dict[tuple, list] = {}
    position = 0
    while position < room:
      if row[position] in keys:
        known.setdefault(tuple(row[position : position + S]), []).extend(row[position + S : position + 2 * S])
      position += 2 * S if row[position] in keys else 1
    position = room + 1
    while position < len(row):
      answer = known[tuple(row[position : position + S])]
      answers[position + S - 1 : position + S - 1 + len(answer)] = answer
      position += S + len(answer) - 1
  return targets


def _rules(kind: str, shape: Shape) -> dict[str, bool]:
  keys, S, P = _alphabets(shape)[0], shape.span, _count(shape)
  rules = base.least("items", P, 1, "are no needles") | base.least("span", S, 1, "is no word")
  rules |= base.least("vocabulary", shape.vocabulary, base.FIRST + 6, "has no three alphabets of two tokens")
  if not all(rules.values()):
    return rules
  many = f"items={P} are more than there are words of span={S} in alphabets of {len(keys)}; give a larger vocabulary"
  asked = S * (P + 1) if kind == "multi_value" else _questions(kind, P) * (2 * S - 1) + 1
  room = f"cannot hold items={P} needles of span={S}, their questions and a haystack"
  rules |= base.countable(shape) | {many: len(keys) ** S >= P}
  return rules | base.least("length", shape.length, 2 * S * P + asked + 1, room)


def _chains(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  variables, values, hay = _roles(shape)
  P, links = shape.items, shape.hops + 1
  variable = variables.start + distinct(rng, count, len(variables), P * links).reshape(count, P, links)
  value = values.start + distinct(rng, count, len(values), P)
  assigned = np.concatenate([value[:, :, None], variable[:, :, :-1]], axis=2)
  lines = np.stack([variable, np.full_like(variable, _EQUALS), assigned], axis=3).reshape(count, P * links, 3)
  tokens = base.drawn(rng, hay, (count, shape.length))
  chain = rng.permuted(np.tile(np.repeat(np.arange(P), links), (count, 1)), axis=1)
  room = shape.length - P * links - 1
  starts = base.places(rng, count, room, P * links, 3)
  base.put(tokens, np.take_along_axis(starts, np.argsort(chain, axis=1, kind="stable"), axis=1), lines)
  order = rng.permuted(np.tile(np.arange(P * links), (count, 1)), axis=1)
  tokens[:, room], tokens[:, room + 1 :] = base.ASK, np.take_along_axis(variable.reshape(count, -1), order, axis=1)
  targets = base.unasked(tokens)
  targets[:, room + 1 :] = np.take_along_axis(value, order // links, axis=1)
  return tokens, targets


def _roles(shape: Shape) -> tuple[range, range, range]:
  """The alphabets of variables, values and the haystack."""
  variables, values, hay = base.parts(shape.vocabulary, 3, first=_EQUALS + 1)
  return variables, values, hay


def _solve_chains(tokens: Int[np.ndarray, "B T"], _: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: each variable behind ASK is looked up until no assignment is left."""
  targets, room = base.unasked(tokens), int((tokens[0] == base.ASK).argmax())
  for row, answers in zip(tokens.tolist(), targets, strict=True):
    assigned = {row[i - 1]: row[i + 1] for i, token in enumerate(row) if token == _EQUALS}
    for position in range(room + 1, len(row)):
      name = row[position]
      while name in assigned:
        name = assigned[name]
      answers[position] = name
  return targets


def _chain_rules(shape: Shape) -> dict[str, bool]:
  P, lines = shape.items, shape.items * (shape.hops + 1)
  few = f"has too few variables for {lines} assignments"
  rules = base.least("items", P, 1, "are no chains")
  rules |= base.least("hops", shape.hops, 1, "assign no variable to another")
  rules |= base.least("vocabulary", shape.vocabulary, _EQUALS + 1 + 3 * lines, few)
  room = f"cannot hold {lines} assignments, questions and a haystack"
  return rules | base.least("length", shape.length, 4 * lines + 2, room)


def _mechanism(kind: str, usual: Shape, *more: str) -> Mechanism:
  return Mechanism(
    usual,
    frozenset({"length", "vocabulary", "span", *more}),
    functools.partial(_needles, kind),
    _solve_needles,
    lambda shape: _alphabets(shape)[1],
    functools.partial(_rules, kind),
  )


NEEDLE = _mechanism("needle", Shape(length=32, vocabulary=26, span=2))
MULTI_KEY = _mechanism("multi_key", Shape(length=32, vocabulary=50, items=4, span=2), "items")
MULTI_VALUE = _mechanism("multi_value", Shape(length=32, vocabulary=50, items=3, span=1), "items")
MULTI_QUERY = _mechanism("multi_query", Shape(length=32, vocabulary=50, items=4, span=1), "items")
VARIABLE_TRACKING = Mechanism(
  Shape(length=32, vocabulary=30, items=3, hops=1),
  frozenset({"length", "vocabulary", "items", "hops"}),
  _chains,
  _solve_chains,
  lambda shape: _roles(shape)[1],
  _chain_rules,
)
