"""How attention is cut into blocks: sizes from the shape, blocks that a mask empties left out."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array

from attention_lab.attention.base import Call

LOGITS = 2**20  # logits alive at once: 4 MiB in float32, a share of a last-level cache
QUERIES = 256  # queries of a block, once T is longer
SMALLEST = 64  # queries of a block under a narrow window
RUNS = 8  # static groups of causal blocks, two or more in each, against keys up to the group's end


@dataclasses.dataclass(frozen=True)
class Plan:
  """`blocks` blocks of `size` queries, for `chunk` groups at a time."""

  size: int
  blocks: int
  chunk: int
  recompute: bool  # the backward pass computes logits again instead of storing them
  runs: tuple[tuple[int, int, int], ...]  # blocks first … last − 1 see the keys before end
  near: tuple[int, int] | None  # a window: blocks of keys seen to the left and to the right of the own one

  @property
  def keys(self) -> int:
    """The most keys that one block sees."""
    return max(end for _, _, end in self.runs) if self.near is None else (sum(self.near) + 1) * self.size


def make(T: int, S: int, groups: int, heads: int, call: Call, depth: int = 1) -> Plan:
  """The plan for `groups` independent groups of `heads` query heads each; depth: numbers alive for each logit."""
  mask, known = call.mask, call.positions.known
  skips = known and mask.causal and mask.prefix is None
  left, right = mask.span or (S, S)
  right = 1 if skips else right
  span = left + right - 2
  size = T if T * S <= QUERIES**2 or T <= QUERIES else QUERIES
  if known and mask.window is not None and size < T:
    size = min(QUERIES, max(SMALLEST, 2 ** math.ceil(math.log2(max(span, 1)))))
  if depth > 1:
    size = max(1, min(size, LOGITS // (heads * depth * S)))
  blocks = -(-T // size)
  near = (-(-(left - 1) // size), -(-(right - 1) // size))
  dense = mask.explicit is not None or call.bias is not None
  if not known or mask.window is None or dense or blocks == 1 or (sum(near) + 1) * size >= S:
    near = None
  plan = Plan(size, blocks, 1, True, _runs(blocks, size, S, skips), near)
  chunk = max(
    c for c in range(1, groups + 1) if groups % c == 0 and (c == 1 or c * heads * depth * size * plan.keys <= LOGITS)
  )
  return dataclasses.replace(plan, chunk=chunk, recompute=chunk < groups or blocks > 1)


def _runs(blocks: int, size: int, S: int, skips: bool) -> tuple[tuple[int, int, int], ...]:
  if not skips:
    return ((0, blocks, S),)
  count = max(1, min(blocks // 2, RUNS))
  edges = [round(blocks * run / count) for run in range(count + 1)]
  return tuple((first, last, min(S, last * size)) for first, last in itertools.pairwise(edges))


def time_axis(array: Array) -> int:
  """Arrays with heads are `C K … T H`, the others `C T`."""
  return array.ndim - 2 if array.ndim > 2 else 1


def pad(array: Array, length: int, before: int = 0, fill: int = 0) -> Array:
  """Pads (or cuts, on the right) the time axis to `length`, `before` of it in front."""
  axis = time_axis(array)
  array = jax.lax.slice_in_dim(array, 0, min(array.shape[axis], length - before), axis=axis)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (before, length - before - array.shape[axis])
  return jnp.pad(array, widths, constant_values=fill)


def split(array: Array, blocks: int) -> Array:
  """Cuts the time axis into blocks and brings the block axis to the front."""
  axis = time_axis(array)
  return jnp.moveaxis(array.reshape(*array.shape[:axis], blocks, -1, *array.shape[axis + 1 :]), axis, 0)


def neighbours(array: Array, plan: Plan, fill: int) -> Array:
  """For each block of queries the keys within the window: overlapping pieces, whose gradient is a sum of pads."""
  left, right = plan.near
  count = left + plan.blocks + right
  pieces = split(pad(array, count * plan.size, before=left * plan.size, fill=fill), count)
  shifted = [pieces[shift : shift + plan.blocks] for shift in range(left + 1 + right)]
  return jnp.concatenate(shifted, axis=time_axis(array) + 1)
