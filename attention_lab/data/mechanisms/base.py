"""Shared parts of all mechanisms: their sizes, alphabets, and draws for many examples at once.

Token PAD is 0 and never asked; ASK is 1, the mark before questions; a mechanism's own alphabets begin at FIRST.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Int, Shaped

from attention_lab.data.generated import distinct

PAD, ASK, FIRST = 0, 1, 2  # token ids
Examples = tuple[np.ndarray, np.ndarray]  # tokens and targets, int `B T`; targets are −1 where nothing is asked


@dataclasses.dataclass(frozen=True)
class Shape:
  """The sizes of an example; a mechanism reads some of them, and the others stay 0."""

  length: int  # T, tokens
  vocabulary: int  # V, with PAD and ASK
  items: int = 0  # keys, needles, chains or tokens to copy
  span: int = 0  # tokens of a key or a value
  hops: int = 0  # assignments from variable to variable in a chain
  noise: float = 0.0  # fraction of the pairs that are noise


@dataclasses.dataclass(frozen=True)
class Mechanism:
  """One kind of generated example: how it is made, solved and checked."""

  usual: Shape  # the default sizes
  reads: frozenset[str]  # the fields of Shape that may be given
  make: Callable[[np.random.Generator, int, Shape], Examples]  # (rng, count, shape); it may give fewer than `count`
  solve: Callable[[np.ndarray, Shape], np.ndarray]  # the targets, from the tokens alone
  answers: Callable[[Shape], range]  # the tokens that may be asked, all equally likely
  rules: Callable[[Shape], dict[str, bool]]  # message for a shape that does not fit -> True where it fits
  fixed: str = ""  # why examples cannot be longer than those of training; "" = they can


def parts(vocabulary: int, count: int, first: int = FIRST) -> tuple[range, ...]:
  """`count` alphabets that follow each other from `first`, of one size; the last has what is left over."""
  size = max(vocabulary - first, 0) // count
  starts = [first + size * number for number in range(count)]
  return *(range(start, start + size) for start in starts[:-1]), range(starts[-1], vocabulary)


def least(name: str, value: int, bound: int, why: str) -> dict[str, bool]:
  """The rule that a size has its least value."""
  return {f"{name}={value} {why}; give {name} >= {bound}": value >= bound}


def countable(shape: Shape) -> dict[str, bool]:
  """The rule that words have numbers of 64 bits."""
  message = f"span={shape.span} over vocabulary={shape.vocabulary} makes more words than 2⁶²; give a smaller one"
  return {message: shape.vocabulary ** min(shape.span, 64) < 2**62}


def spell(codes: Int[np.ndarray, "*B"], alphabet: range, span: int) -> Int[np.ndarray, "*B S"]:
  """The words of `span` tokens that numbers 0 … |alphabet|^span − 1 stand for."""
  return alphabet.start + codes[..., None] // len(alphabet) ** np.arange(span) % len(alphabet)


def drawn(rng: np.random.Generator, alphabet: range, shape: tuple[int, ...]) -> Int[np.ndarray, "..."]:
  """Random tokens of an alphabet, each alike likely."""
  return rng.integers(alphabet.start, alphabet.stop, shape)


def places(rng: np.random.Generator, count: int, room: int, size: int, width: int = 1) -> Int[np.ndarray, "B K"]:
  """The starts of `size` stretches of `width` tokens in `room` tokens, in order, without overlap, all alike likely."""
  order = np.sort(distinct(rng, count, room - size * (width - 1), size), axis=1)
  return order + np.arange(size) * (width - 1)


def put(tokens: Int[np.ndarray, "B T"], starts: Int[np.ndarray, "B K"], pieces: Int[np.ndarray, "B K S"]) -> None:
  """Writes stretches of tokens into rows in place, each from its start on."""
  index = starts[:, :, None] + np.arange(pieces.shape[2])
  np.put_along_axis(tokens, index.reshape(len(tokens), -1), pieces.reshape(len(tokens), -1), axis=1)


def unasked(tokens: Shaped[np.ndarray, "B T"]) -> Int[np.ndarray, "B T"]:
  """Targets of −1 everywhere, which ask nothing yet."""
  return np.full(tokens.shape, -1, np.int64)
