"""Proofs at 300 tokens: what holds of a few tokens holds on both sides of every border that a chunk can have.

Most of them need no oracle: one computation is compared with another that meets the borders of chunks elsewhere.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.certify import equality
from attention_lab.certify.equality import Cell
from attention_lab.certify.finding import NOT_GIVEN, NOT_RUN, require, same
from attention_lab.certify.settings import SPEED_ONLY
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest, at_positions, rows

LONG, LONGEST = 300, 1024  # tokens; more of them where a field of the variant asks for more, up to the second number
CAUSAL_LENGTHS = (31, 65, 129, 257)  # tokens of causal calls; one beside a power of two
PADDED_LENGTHS = (33, 64, 127, 255)  # tokens of calls that are compared with padded ones
ORACLE_LENGTH = 130  # tokens that an oracle's loops take
CHUNKS = (64, 512)  # values of a field about speed
LOW_DECODING = 2.0**-5  # largest error of decoding in bfloat16, relative to the largest output
PIECE = 75  # tokens of a piece in decoding
# Segments in their order: their sizes, and their numbers in this order and in the reversed one. Borders of the first
# lie at 1, 32, 64, 65, 128, 200, 256 and 270, of the second at 30, 44, 100, 172, 235, 236, 268 and 299.
SEGMENTS = (1, 31, 32, 1, 63, 72, 56, 14, 30)
NUMBERS = ((9, 8, 7, 6, 5, 4, 3, 2, 0), (5, -4, 70000, 2, 8, 1, 7, 3, 0))
ALONE = 5  # the segment, of 72 tokens, that is computed separately too


def prefixes(subject: VariantUnderTest) -> str:
  """The first tokens of a long causal call equal a call on them alone."""
  require("causal" in subject.claims.masks, "causal is refused")
  shape = long_shape(subject)
  inputs, params, call = subject.inputs(shape), subject.params(shape.dims()), Call(CAUSAL)
  whole, lengths = np.asarray(subject.forward(params, inputs, call)), _few(subject, CAUSAL_LENGTHS)
  for length in lengths:
    alone = subject.forward(params, rows(inputs, 0, length), call)
    what = f"the first {length} of {shape.T} tokens against a call on them"
    same(whole[:, :length], alone, what, shape=shape, seed=0)
  return f"lengths {', '.join(map(str, lengths))} of {shape.T}"


def padding(subject: VariantUnderTest) -> str:
  """Padded to a long sequence equals cut off."""
  require({"q_valid", "kv_valid"} <= subject.claims.masks, "padding is refused")
  shape, mask = long_shape(subject), subject.mask()
  inputs, params, lengths = subject.inputs(shape), subject.params(shape.dims()), _few(subject, PADDED_LENGTHS)
  for length in lengths:
    real = jnp.asarray(np.tile(np.arange(shape.T) < length, (shape.B, 1)))
    padded = np.asarray(subject.forward(params, inputs, Call(mask & Mask(q_valid=real, kv_valid=real))))
    cut = subject.forward(params, rows(inputs, 0, length), Call(mask))
    what = f"{length} tokens padded to {shape.T} against truncation"
    same(padded[:, :length], cut, what, shape=shape, seed=0)
  return f"lengths {', '.join(map(str, lengths))} padded to {shape.T}"


def order(subject: VariantUnderTest) -> str:
  """Tokens in any order give the same outputs: positions move with them, or softmax over all keys needs none."""
  claims, shape = subject.claims, long_shape(subject)
  by_positions = "explicit" in claims.masks
  require(
    by_positions or (claims.exactness == "exact" and not (claims.encodes_positions or claims.requires_causal)),
    "the order of its tokens plays a part",
  )
  inputs, params = subject.inputs(shape), subject.params(shape.dims())
  shuffled = np.random.default_rng(0).permutation(shape.T)
  moved = Inputs(*(None if array is None else array[:, shuffled] for array in inputs))
  positions = at_positions(*[np.tile(shuffled, (shape.B, 1))] * 2) if by_positions else Positions()
  masks = [CAUSAL] * by_positions + [Mask()] * (not claims.requires_causal and not (by_positions and subject.quick))
  for mask in masks:
    expected = np.asarray(subject.forward(params, inputs, Call(mask)))[:, shuffled]
    out = subject.forward(params, moved, Call(mask, positions))
    same(out, expected, f"{shape.T} tokens in another order", shape=shape, seed=0)
  return f"{shape.T} tokens, {'with their positions' if by_positions else 'without positions'}"


def packing(subject: VariantUnderTest) -> str:
  """Segments of any numbers, packed in two orders with borders on and off those of chunks, equal each other."""
  require("segments" in subject.claims.masks, "segments are refused")
  shape = long_shape(subject)
  inputs, params, (tokens, numbers, positions) = subject.inputs(shape), subject.params(shape.dims()), _two_orders()
  packed = Inputs(*(None if array is None else array[0][tokens] for array in inputs))
  start, size = sum(SEGMENTS[:ALONE]), SEGMENTS[ALONE]
  masks = [CAUSAL] * ("causal" in subject.claims.masks) + [Mask()] * (not subject.claims.requires_causal)
  masks = masks[:1] if subject.quick else masks
  for mask in masks:
    segments = Mask(q_segments=jnp.asarray(numbers), k_segments=jnp.asarray(numbers))
    out = np.asarray(subject.forward(params, packed, Call(mask & segments, at_positions(positions, positions))))
    first, second = (out[row][np.argsort(tokens[row])][None] for row in range(2))
    same(first, second, "segments packed in one order against the reversed one", shape=shape, seed=0)
    alone = subject.forward(params, rows(inputs, start, start + size), Call(mask))
    same(first[:, start : start + size], alone[:1], f"packed from {start} against separate", shape=shape, seed=0)
  return f"{len(SEGMENTS)} segments in {sum(SEGMENTS)} tokens, {len(masks)} masks"


def _two_orders() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Tokens, numbers of segments and positions of a sequence whose segments come in order, and in the reversed one."""
  ends = np.cumsum(SEGMENTS)
  runs = [np.arange(end - size, end) for end, size in zip(ends, SEGMENTS, strict=True)]
  orders = runs, runs[::-1]
  tokens = [np.concatenate(order) for order in orders]
  numbers = [np.repeat(ids, [len(run) for run in order]) for ids, order in zip(NUMBERS, orders, strict=True)]
  positions = [np.concatenate([run - run[0] for run in order]) for order in orders]
  return np.stack(tokens), np.stack(numbers).astype(np.int32), np.stack(positions)


def chunks(subject: VariantUnderTest) -> str:
  """A size that is about speed alone leaves the result of a long call as it is."""
  fields = [field for field in dataclasses.fields(subject.variant) if type(getattr(subject.variant, field.name)) is int]
  names = [field.name for field in fields if field.name in SPEED_ONLY or field.metadata.get("speed", False)]
  require(bool(names), "no size is about speed alone")
  shape, count = long_shape(subject), 0
  inputs, params, call = subject.inputs(shape), subject.params(shape.dims()), Call(subject.mask())
  expected = subject.forward(params, inputs, call)
  for name, size in itertools.product(names, CHUNKS[:1] if subject.quick else CHUNKS):
    try:
      other = dataclasses.replace(subject, variant=dataclasses.replace(subject.variant, **{name: size}))
    except ValueError:  # not a legal value of this field
      continue
    same(other.forward(params, inputs, call), expected, f"{name}={size} at {shape.T} tokens", shape=shape, seed=0)
    count += 1
  require(count > 0, f"none of {CHUNKS} is legal", NOT_RUN)
  return f"{count} sizes at {shape.T} tokens"


def oracles(subject: VariantUnderTest) -> str:
  """The output equals the oracle's where a sequence is longer than two chunks of 64."""
  require(subject.case is not None, "no oracle", NOT_GIVEN)
  return equality.compare(subject, _oracle_cells(subject), draws=1)


def _oracle_cells(subject: VariantUnderTest) -> Iterator[Cell]:
  shape = subject.shape(B=1, T=ORACLE_LENGTH, S=ORACLE_LENGTH, N=2, K=1, H=2)
  yield Cell(shape, ("causal", "kv_valid", "segments"))
  if not subject.quick:
    yield Cell(shape)


def decoding(subject: VariantUnderTest) -> str:
  """Decoding of a long sequence, in long pieces and token by token, equals one causal call."""
  require(subject.claims.decode, "cannot decode step by step")
  shape = long_shape(subject)
  params, inputs = subject.params(shape.dims()), recent(subject.inputs(shape))
  whole = subject.forward(params, inputs, Call(CAUSAL))
  pieces, rest = divmod(shape.T, PIECE)
  for split in ([PIECE] * pieces + [1] * rest, [PIECE] + [1] * (shape.T - PIECE)):
    out = _decoded(subject, shape, inputs, split, jnp.float32)
    same(out, whole, f"{split.count(PIECE)} pieces of {PIECE} and {split.count(1)} of 1", shape=shape, seed=0)
  return f"{shape.T} tokens, in pieces of {PIECE} and of 1"


def low_decoding(subject: VariantUnderTest) -> str:
  """With a decoding state in bfloat16, a long sequence token by token is near one causal call in bfloat16."""
  require(subject.claims.decode, "cannot decode step by step")
  shape = long_shape(subject)
  inputs = jax.tree.map(lambda array: jnp.asarray(array, jnp.bfloat16), recent(subject.inputs(shape)))
  whole = subject.forward(subject.params(shape.dims()), inputs, Call(CAUSAL))
  out = _decoded(subject, shape, inputs, [1] * shape.T, jnp.bfloat16)
  error = same(out, whole, "a state in bfloat16, token by token", tolerance=LOW_DECODING, shape=shape, seed=0)
  return f"{shape.T} tokens, error {error:.0e} <= {LOW_DECODING:.0e}"


def _decoded(subject: VariantUnderTest, shape: Shape, inputs: Inputs, split: list[int], dtype: type) -> np.ndarray:
  """The outputs of a sequence that is decoded in pieces of the sizes `split`."""
  params, start, outs = subject.params(shape.dims()), 0, []
  state = subject.variant.init_state(shape.B, shape.dims(), dtype)
  for size in split:
    state, out = subject.extend(params, state, rows(inputs, start, start + size), None, CAUSAL)
    outs.append(out)
    start += size
  return np.concatenate([np.asarray(out, np.float32) for out in outs], axis=1)


def recent(inputs: Inputs) -> Inputs:
  """The inputs with the queries of every second head like the key of their token, so that a lost key shows."""
  if inputs.q is None or inputs.k is None:
    return inputs
  near = 1.5 * np.repeat(inputs.k, inputs.q.shape[2] // inputs.k.shape[2], axis=2)
  even = np.arange(inputs.q.shape[2])[:, None] % 2 == 0
  return inputs._replace(q=np.where(even, near, inputs.q))


def long_shape(subject: VariantUnderTest) -> Shape:
  """A long sequence for six heads on two; past twice the largest size among the variant's fields."""
  values = [getattr(subject.variant, field.name) for field in dataclasses.fields(subject.variant)]
  largest = max((value for value in values if type(value) is int), default=0)
  length = min(LONGEST, max(LONG, 2 * largest + 12))
  return subject.shape(T=length, S=length, N=6, K=2)


def _few(subject: VariantUnderTest, lengths: tuple[int, ...]) -> tuple[int, ...]:
  """The lengths that are looked at: one of them in the quick form."""
  return lengths[1:2] if subject.quick else lengths


PROOFS = {
  "equals its oracle at length": oracles,
  "long prefixes stand alone": prefixes,
  "long padding equals truncation": padding,
  "long packing equals separate": packing,
  "tokens in any order": order,
  "chunks leave the result": chunks,
  "extend at length": decoding,
  "extend with a 16-bit state": low_decoding,
}
