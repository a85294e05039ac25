"""The lowered programs of a variant as text: two variants whose texts are equal are one and the same."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.mask import Mask
from attention_lab.certify import equality
from attention_lab.certify.equality import Cell
from attention_lab.certify.under_test import Shape, VariantUnderTest, is_fixed, rows


class Programs:
  """The programs of one variant, lowered when first compared and kept."""

  def __init__(self, subject: VariantUnderTest):
    self._subject = subject
    self._rest = _programs(subject)
    self._lowered: list[str] = []

  def __iter__(self) -> Iterator[str]:
    yield from self._lowered
    for program in self._rest:
      self._lowered.append(program)
      yield program

  def equal(self, other: VariantUnderTest, first: int | None = None) -> bool:
    """True if output, gradients and `extend` of the other variant are the same text, all or the `first` of them."""
    try:
      both = itertools.zip_longest(self, _programs(other))
      return alike(self._subject, other) and all(a == b for a, b in itertools.islice(both, first))
    except Exception:  # a variant may raise anything, and then nothing is proved
      return False

  def distance(self, other: VariantUnderTest) -> float:
    """The largest difference of the two outputs over the quick pool; inf where only one refuses."""
    worst = 0.0
    for cell in equality.cells(self._subject):
      outs = []
      for subject in (self._subject, other):
        inputs, call, problem = equality.instance(subject, cell, 0)
        outs += [] if problem else [subject.run(inputs, cell.shape, call)]
      if len(outs) == 1 or (outs and outs[0].shape != outs[1].shape):
        return float("inf")
      worst = max(worst, float(np.max(np.abs(outs[0] - outs[1]))) if outs else 0.0)
    return worst


def alike(first: VariantUnderTest, second: VariantUnderTest) -> bool:
  """True if the trees of parameters have one structure, and what is fixed in them one value."""
  for shape in _starts(first):
    trees = [_start(subject, shape) for subject in (first, second)]
    structures: list[Any] = list(map(jax.tree.structure, trees))
    if structures[0] != structures[1]:
      return False
    paths, others = map(jax.tree_util.tree_leaves_with_path, trees)
    for (path, a), (_, b) in zip(paths, others, strict=True):
      if a.shape != b.shape or a.dtype != b.dtype or (is_fixed(path) and not np.array_equal(a, b)):
        return False
  return True


def starts_elsewhere(first: VariantUnderTest, second: VariantUnderTest) -> bool:
  """True if the two differ in the initial values of trained parameters, and their trees in nothing else."""
  trees = [[_start(subject, shape) for shape in _starts(first)] for subject in (first, second)]
  moved = any(not np.array_equal(a, b) for a, b in zip(*map(jax.tree.leaves, trees), strict=False))
  return moved and alike(first, second)


def _starts(subject: VariantUnderTest) -> list[Shape]:
  """The shapes at which initial parameters are compared."""
  return [subject.shape(N=n, K=n, T=t, S=t) for n, t in ((4, 5), (3, 7), (1, 1), (6, 300))]


def _start(subject: VariantUnderTest, shape: Shape) -> Any:
  return subject.variant.init(jax.random.key(0), shape.dims())


def _programs(subject: VariantUnderTest) -> Iterator[str]:
  subject = dataclasses.replace(subject, quick=False)
  for shape in _starts(subject)[:-1]:
    yield f"{subject.variant.capacity(shape.dims())} {_gradient(subject, Cell(shape, ('causal', 'kv_valid')))}"
  for cell in equality.cells(subject):
    yield _gradient(subject, cell)
  if subject.claims.decode:
    yield from _decoding(subject)


def _gradient(subject: VariantUnderTest, cell: Cell) -> str:
  inputs, call, problem = equality.instance(subject, cell, 0)
  if problem:
    return problem
  params = subject.params(cell.shape.dims())
  out = jax.eval_shape(subject.eager, params, inputs, call)
  return _text(subject.gradient, params, inputs, call, np.zeros(out.shape, np.float32))


def _text(program: Any, *arguments: Any) -> str:
  """The lowered program; its arguments go in as a list of leaves."""
  leaves, tree = jax.tree.flatten(arguments)
  plain = program.function  # without its options for the compiler, which an outer program cannot honour
  return jax.jit(lambda leaves: plain(*jax.tree.unflatten(tree, leaves))).lower(leaves).as_text()


def _decoding(subject: VariantUnderTest) -> Iterator[str]:
  shape = subject.shape(T=9, S=9)
  params = subject.params(shape.dims())
  for mask, size in itertools.product((Mask(causal=True), Mask(causal=True, window=2)), (1, 4)):
    if mask.names() <= subject.claims.masks:
      state = subject.variant.init_state(shape.B, shape.dims(), jnp.float32)
      inputs = rows(subject.inputs(shape), 0, size)
      lengths = jnp.ones(shape.B, jnp.int32)
      yield _text(subject.extend, params, state, inputs, lengths, mask)
