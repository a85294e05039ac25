"""Gradients against differences of the output itself: of a bias, and of everything in a long sequence.

Differences are taken in float32, as many variants compute. Where those to both sides disagree the output jumps or bends
along that direction, because another key is chosen, and so much less is said of its slope; a smaller step avoids it.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify import random_calls
from attention_lab.certify.finding import NOT_ASKED, NOT_RUN, Refuted, require
from attention_lab.certify.under_test import Shape, VariantUnderTest, is_fixed

LENGTH = 130  # tokens: two chunks of 64, and a remainder
STEPS = (1e-3, 1e-4)  # of differences
# Largest error of a slope, relative to its usual size, and the smallest size that is told from rounding.
TOLERANCE, SMALL = 1e-2, 0.05
BEND = 0.05  # largest disagreement of the two sides, relative to the same, at which a slope is looked at

MovesFn = Callable[[tuple], bool]  # whether a leaf moves, by its path in (params, inputs, bias)


def biases(subject: VariantUnderTest) -> str:
  """Along a random bias, for each example and for all of them at once."""
  require(subject.claims.bias, "refuses a bias")
  shape = subject.shape(T=6, S=6, K=2)
  call = random_calls.call(subject, shape, ("causal", "bias"), seed=0)
  calls = [call, call._replace(bias=jnp.asarray(call.bias)[:1])][: 1 if subject.quick else 2]
  return _agree(subject, shape, calls, lambda path: path[0].idx == 2)


def long(subject: VariantUnderTest) -> str:
  """Along random directions of each input and parameter, at a length of several chunks."""
  require(not subject.quick, "only in the full battery", NOT_RUN)
  shape = subject.shape(B=1, T=LENGTH, S=LENGTH, N=6, K=2)
  mask = Mask(causal="causal" in subject.claims.masks)
  return _agree(subject, shape, [Call(mask)], lambda path: not is_fixed(path))


class Slope(NamedTuple):
  """The slope of an output along a random direction of one leaf."""

  name: str
  gradient: float  # by the gradient
  sides: list[tuple[float, float]]  # by the differences to both sides, with each step
  size: float  # of such slopes: the norm of what the leaf's entries add


def _agree(subject: VariantUnderTest, shape: Shape, calls: list[Call], moves: MovesFn) -> str:
  """Refutes where a slope differs from differences along one of the leaves whose path `moves`."""
  require(subject.differentiable, "its gradient cannot be taken", NOT_ASKED)
  require(not subject.claims.straight_through, "its gradient is that of a smooth stand-in")
  worst, count, jumps = 0.0, 0, 0
  for slope in (slope for call in calls for slope in _slopes(subject, shape, call, moves)):
    rights = [(above + below) / 2 for above, below in slope.sides]
    size = max(slope.size, abs(rights[0]), SMALL)
    bends = [abs(above - below) / size for above, below in slope.sides]
    errors = [abs(slope.gradient - right) / size for right in rights]
    if min(bends) > BEND:
      jumps += 1
      continue
    if not any(bend <= BEND and error <= TOLERANCE + bend for bend, error in zip(bends, errors, strict=True)):
      right = rights[bends.index(min(bends))]
      detail = f"the gradient along {slope.name} is {slope.gradient:.6g}, and {right:.6g} is right"
      raise Refuted(detail, shape=shape, seed=0, position=slope.name)
    worst, count = max(worst, min(errors)), count + 1
  require(count > 0, "its output jumps along every direction", NOT_RUN)
  return f"{count} directions, largest error {worst:.0e}" + (f"; it jumps along {jumps} others" if jumps else "")


def _slopes(subject: VariantUnderTest, shape: Shape, call: Call, moves: MovesFn) -> Iterator[Slope]:
  """Two slopes along every float leaf of the parameters, the inputs and the bias that moves."""
  rng = np.random.default_rng(7)
  point = subject.params(shape.dims()), subject.inputs(shape), call.bias
  cotangent = rng.normal(size=jax.eval_shape(subject.eager, *point[:2], call).shape).astype(np.float32)
  gradients = jax.tree.leaves(subject.gradient(*point[:2], call, cotangent)[1])
  paths, tree = jax.tree_util.tree_flatten_with_path(point)

  def product(index: int, leaf: Any) -> float:
    leaves = [value for _, value in paths]
    leaves[index] = jnp.asarray(leaf, leaves[index].dtype)
    params, inputs, bias = jax.tree.unflatten(tree, leaves)
    return float(np.sum(np.asarray(subject.forward(params, inputs, call._replace(bias=bias)), float) * cotangent))

  base = product(0, paths[0][1])

  for index, (path, leaf) in enumerate(paths):
    if not (moves(path) and jnp.issubdtype(leaf.dtype, jnp.floating)):
      continue
    name = jax.tree_util.keystr(path[1:], simple=True, separator="/") or f"a bias of shape {leaf.shape}"
    gradient = np.asarray(gradients[index], float)
    sizes = np.abs(gradient)
    usual = np.median(sizes[sizes > 0]) if np.any(sizes) else 1.0
    for share in (1.0, usual / (usual + sizes)):  # in the second direction large entries do not drown the others
      direction = rng.normal(size=leaf.shape) * share
      ends = [(product(index, leaf + h * direction), product(index, leaf - h * direction)) for h in STEPS]
      sides = [((above - base) / h, (base - below) / h) for (above, below), h in zip(ends, STEPS, strict=True)]
      terms = gradient * direction
      yield Slope(name, float(np.sum(terms)), sides, float(np.linalg.norm(terms)))


PROOFS = {"gradient of a bias equals differences": biases, "gradient at length equals differences": long}
