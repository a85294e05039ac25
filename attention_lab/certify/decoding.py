"""The law of `extend`: any split of the sequence, extended piece by piece, equals one causal call."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify.finding import Refuted, require, same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest, rows

LENGTH = 9  # tokens of a sequence
SPLITS = ((1,) * 9, (4, 1, 4), (1, 4, 4))  # tokens in each chunk
MORE_SPLITS = ((9,), (4, 4, 1), (1, 1, 7), (7, 1, 1))  # of the full battery
RAGGED = (4, 4, 1, 1, 4)  # room in each chunk; how much of it is real differs from row to row


def any_split(subject: VariantUnderTest) -> str:
  """Token by token, in pieces, all at once: equal to one causal call."""
  require(subject.claims.decode, "cannot decode step by step")
  return law(subject, Mask(causal=True), SPLITS if subject.quick else SPLITS + MORE_SPLITS, subject.draws)


def masked(subject: VariantUnderTest) -> str:
  """The same under a window, and under a prefix that lies in the first piece."""
  claims = subject.claims
  names = sorted({"window", "prefix"} & claims.masks) if claims.decode else []
  require(bool(names), "honours neither window nor prefix, or cannot decode")
  for name in names:
    prefix = jnp.asarray(np.array([3, 1, 4], np.int32))
    mask = Mask(causal=True, window=2) if name == "window" else Mask(causal=True, prefix=prefix)
    splits = ((1,) * 9, (4, 1, 4)) if name == "window" else ((4, 1, 4), (4, 4, 1))
    law(subject, mask, splits, subject.draws)
  return f"under {', '.join(names)}"


def law(subject: VariantUnderTest, mask: Mask, splits: tuple[tuple[int, ...], ...], draws: int) -> str:
  """The law of `extend` under a mask.

  Args:
    subject: the variant under test.
    mask: causal, possibly with window or prefix.
    splits: tokens in each piece, `LENGTH` in all.
    draws: random instances.

  Returns:
    What was examined.

  Raises:
    Refuted: a piece differs from the same rows of one causal call.
  """
  shape = _shape(subject)
  params = subject.params(shape.dims())
  for seed in range(draws):
    inputs = subject.inputs(shape, seed)
    whole = np.asarray(subject.forward(params, inputs, Call(mask)))
    for split in splits:
      state, start = subject.variant.init_state(shape.B, shape.dims(), jnp.float32), 0
      for size in split:
        state, out = _extend(subject, params, state, rows(inputs, start, start + size), None, mask)
        what = f"split {'+'.join(map(str, split))}, piece from {start}"
        same(out, whole[:, start : start + size], what, shape=shape, seed=seed)
        start += size
  return f"{len(splits)} splits of {LENGTH}, {draws} draws at {shape}"


def ragged(subject: VariantUnderTest) -> str:
  """Rows of unequal length, padded on the right with garbage: each equals its own causal call."""
  require(subject.claims.decode, "cannot decode step by step")
  shape = _shape(subject)
  params, mask = subject.params(shape.dims()), Mask(causal=True)
  for seed in range(subject.draws):
    rng = np.random.default_rng(seed)
    inputs = subject.inputs(shape, seed)
    whole = np.asarray(subject.forward(params, inputs, Call(mask)))
    state, done = subject.variant.init_state(shape.B, shape.dims(), jnp.float32), np.zeros(shape.B, int)
    for size in RAGGED:
      lengths = np.minimum(rng.integers(0, size + 1, shape.B), LENGTH - done)
      chunk = _chunk(inputs, done, size, lengths, rng)
      state, out = _extend(subject, params, state, chunk, jnp.asarray(lengths.astype(np.int32)), mask)
      for b, real in enumerate(lengths):
        what = f"row {b} of lengths {lengths.tolist()} after {done.tolist()} tokens"
        same(
          np.asarray(out)[b : b + 1, :real], whole[b : b + 1, done[b] : done[b] + real], what, shape=shape, seed=seed
        )
      done += lengths
  return f"pieces of {', '.join(map(str, RAGGED))}, {subject.draws} draws at {shape}"


def _chunk(inputs: Inputs, done: np.ndarray, size: int, lengths: np.ndarray, rng: np.random.Generator) -> Inputs:
  """The next `lengths` tokens of each row, padded on the right with garbage to `size`."""

  def cut(array: Any) -> Any:
    if array is None:
      return None
    out = float(rng.choice((0.3, 30.0))) * rng.normal(size=(len(array), size, *array.shape[2:])).astype(np.float32)
    for b, real in enumerate(lengths):
      out[b, :real] = np.asarray(array)[b, done[b] : done[b] + real]
    return out

  return Inputs(*map(cut, inputs))


def batch_first(subject: VariantUnderTest) -> str:
  """Every leaf of the state has B as leading axis, so that beams, shards and ragged rows can pick its rows."""
  require(subject.claims.decode, "cannot decode step by step")
  shape = _shape(subject)
  two, three = (jax.eval_shape(lambda b=b: subject.variant.init_state(b, shape.dims(), jnp.float32)) for b in (2, 3))
  for a, b in zip(jax.tree.leaves(two), jax.tree.leaves(three), strict=True):
    if a.shape[:1] != (2,) or b.shape != (3, *a.shape[1:]):
      raise Refuted(f"a leaf of the state has shape {a.shape} for 2 examples and {b.shape} for 3", shape=shape)
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  state = subject.variant.init_state(shape.B, shape.dims(), jnp.float32)
  before = jax.tree.map(jnp.shape, state)
  after = jax.tree.map(jnp.shape, _extend(subject, params, state, rows(inputs, 0, 4), None, Mask(causal=True))[0])
  if before != after:
    raise Refuted(f"the state changes its shapes from {before} to {after}", shape=shape)
  return f"{len(jax.tree.leaves(two))} leaves"


def overflow(subject: VariantUnderTest) -> str:
  """Beyond the longest sequence an unbounded state gives NaN or is refused; it never silently forgets."""
  require(subject.claims.decode and subject.claims.state_exponent > 0, "the state does not grow")
  shape = _shape(subject)
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  state = subject.variant.init_state(shape.B, shape.dims(), jnp.float32)
  for start in (0, 4, 5):
    state, _ = _extend(subject, params, state, rows(inputs, start, start + 4), None, Mask(causal=True))
  try:
    _, out = _extend(subject, params, state, rows(inputs, 0, 1), None, Mask(causal=True))
  except ValueError:
    return "refused"
  if not np.all(np.isnan(out)):
    raise Refuted(f"the 13th token of at most {LENGTH} gets an answer", shape=shape)
  return "NaN, never silently a window"


def _shape(subject: VariantUnderTest) -> Shape:
  return subject.shape(B=3, T=LENGTH, S=LENGTH, K=2)


def _extend(
  subject: VariantUnderTest, params: Any, state: Any, chunk: Inputs, lengths: Any, mask: Mask
) -> tuple[Any, Any]:
  return subject.extend(params, state, chunk, lengths, mask)


PROOFS = {
  "extend in any split": any_split,
  "extend of ragged rows": ragged,
  "extend under window and prefix": masked,
  "state has the batch first": batch_first,
  "state never overflows silently": overflow,
}
