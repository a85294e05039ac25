"""Copying, compression, induction, parity and the most frequent token.

  selective_copy   `items` tokens stand scattered among PAD; behind ASK as many PAD, each asked for the next of them
                   (Poli et al. 2024, section 3; first Gu and Dao 2023, Mamba)
  compression      ⌊(T−1)/2⌋ tokens, ASK, and for each place of theirs, in random order, the token that names the place,
                   asked for what stood there; PAD behind them where T is even
  induction        random tokens, ASK once among them and once at the end, where the token behind the first is asked
                   (Olsson et al. 2022; Fu et al. 2023, H3, section 3.1)
  parity           bits, tokens 1 and 2 for 0 and 1; at every one the parity of the bits so far is asked, as a bit
  frequency        random tokens, then ASK, asked for the most frequent of them, of which there is one (after the
                   frequent words of Hsieh et al. 2024, RULER)

Compression departs from MAD, whose encoder hands one vector, that of the last position, to a decoder that asks it for
each place. A causal decoder asks at later positions, and these may read the tokens themselves wherever a model keeps
them: what is squeezed is the state that a model keeps between positions, which for softmax is no bottleneck at all. The
order of the questions is random, so that no shift by a constant answers them.
"""

import numpy as np
from jaxtyping import Int

from attention_lab.data.mechanisms import base
from attention_lab.data.mechanisms.base import Examples, Mechanism, Shape

_ZERO, _ONE = 1, 2  # the tokens of bits


def _content(shape: Shape) -> range:
  return base.parts(shape.vocabulary, 1)[0]


def _scattered(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  room = shape.length - 1 - shape.items
  tokens = np.full((count, shape.length), base.PAD, np.int64)
  targets = base.unasked(tokens)
  copied = base.drawn(rng, _content(shape), (count, shape.items))
  np.put_along_axis(tokens, base.places(rng, count, room, shape.items), copied, axis=1)
  tokens[:, room], targets[:, room + 1 :] = base.ASK, copied
  return tokens, targets


def _copied(tokens: Int[np.ndarray, "B T"], _: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: the tokens before ASK that are not PAD, in order."""
  room, targets = int((tokens[0] == base.ASK).argmax()), base.unasked(tokens)
  targets[:, room + 1 :] = tokens[:, :room][tokens[:, :room] != base.PAD].reshape(len(tokens), -1)
  return targets


def _copy_rules(shape: Shape) -> dict[str, bool]:
  room = f"cannot hold items={shape.items} twice and a mark"
  return (
    base.least("items", shape.items, 1, "are nothing to copy")
    | base.least("vocabulary", shape.vocabulary, base.FIRST + 2, "has no two tokens to copy")
    | base.least("length", shape.length, 2 * shape.items + 1, room)
  )


def _named(shape: Shape) -> tuple[range, range]:
  """The alphabets of tokens that name positions, and of the content."""
  names = range(base.FIRST, base.FIRST + (shape.length - 1) // 2)
  return names, range(names.stop, shape.vocabulary)


def _compressed(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  names, content = _named(shape)
  S = len(names)
  order = rng.permuted(np.tile(np.arange(S), (count, 1)), axis=1)
  held = base.drawn(rng, content, (count, S))
  tokens = np.full((count, shape.length), base.PAD, np.int64)
  tokens[:, :S], tokens[:, S], tokens[:, S + 1 : 2 * S + 1] = held, base.ASK, names.start + order
  targets = base.unasked(tokens)
  targets[:, S + 1 : 2 * S + 1] = np.take_along_axis(held, order, axis=1)
  return tokens, targets


def _opened(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: for each name of a position, the token that stands there."""
  names, targets = _named(shape)[0], base.unasked(tokens)
  asked = slice(len(names) + 1, 2 * len(names) + 1)
  targets[:, asked] = np.take_along_axis(tokens, tokens[:, asked] - names.start, axis=1)
  return targets


def _compression_rules(shape: Shape) -> dict[str, bool]:
  why = f"has no two tokens beside the names of places of length={shape.length}"
  rules = base.least("length", shape.length, 5, "asks for no two places")
  return rules | base.least("vocabulary", shape.vocabulary, _named(shape)[0].stop + 2, why)


def _marked(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  tokens = base.drawn(rng, _content(shape), (count, shape.length))
  mark = rng.integers(0, shape.length - 2, (count, 1))
  np.put_along_axis(tokens, mark, base.ASK, axis=1)
  tokens[:, -1] = base.ASK
  return tokens, _followed(tokens, shape)


def _followed(tokens: Int[np.ndarray, "B T"], _: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: at the end, the token behind the first ASK."""
  targets = base.unasked(tokens)
  targets[:, -1] = tokens[np.arange(len(tokens)), (tokens == base.ASK).argmax(axis=1) + 1]
  return targets


def _bits(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  tokens = rng.integers(_ZERO, _ONE + 1, (count, shape.length))
  return tokens, _parity(tokens, shape)


def _parity(tokens: Int[np.ndarray, "B T"], _: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: the parity of the bits so far."""
  return _ZERO + np.cumsum(tokens == _ONE, axis=1) % 2


def _counted(rng: np.random.Generator, count: int, shape: Shape) -> Examples:
  content = _content(shape)
  tokens = base.drawn(rng, content, (count, shape.length))
  tokens[:, -1] = base.ASK
  ranked = np.sort(_counts(tokens, content), axis=1)
  tokens = tokens[ranked[:, -1] > ranked[:, -2]]
  return tokens, _commonest(tokens, shape)


def _commonest(tokens: Int[np.ndarray, "B T"], shape: Shape) -> Int[np.ndarray, "B T"]:
  """The targets: at the end, the token that stands most often before it."""
  content, targets = _content(shape), base.unasked(tokens)
  targets[:, -1] = content.start + _counts(tokens, content).argmax(axis=1)
  return targets


def _counts(tokens: Int[np.ndarray, "B T"], content: range) -> Int[np.ndarray, "B V"]:
  return np.stack([(tokens == token).sum(axis=1) for token in content], axis=1)


def _short_rules(shape: Shape) -> dict[str, bool]:
  rules = base.least("vocabulary", shape.vocabulary, base.FIRST + 2, "has no two tokens")
  return rules | base.least("length", shape.length, 3, "has nothing to find before its question")


_OPEN = frozenset({"length", "vocabulary"})
SELECTIVE_COPY = Mechanism(
  Shape(length=32, vocabulary=18, items=6), _OPEN | {"items"}, _scattered, _copied, _content, _copy_rules
)
COMPRESSION = Mechanism(
  Shape(length=32, vocabulary=34),
  _OPEN,
  _compressed,
  _opened,
  lambda shape: _named(shape)[1],
  _compression_rules,
  fixed="the tokens that name the further places are never trained",
)
INDUCTION = Mechanism(Shape(length=32, vocabulary=32), _OPEN, _marked, _followed, _content, _short_rules)
PARITY = Mechanism(
  Shape(length=32, vocabulary=_ONE + 1),
  frozenset({"length"}),
  _bits,
  _parity,
  lambda _: range(_ZERO, _ONE + 1),
  lambda shape: base.least("length", shape.length, 1, "has no bits"),
)
FREQUENCY = Mechanism(Shape(length=32, vocabulary=10), _OPEN, _counted, _commonest, _content, _short_rules)
