"""Attention in chunks of queries: a variant writes its equation for one dense block, this engine runs it over all.

For a reader of FlashAttention: only queries are cut, rows of logits stay whole (Rabe and Staats 2021,
https://arxiv.org/abs/2112.05682), so that any normaliser of a row can be written, not only the softmax. Memory is
linear in T: a block of queries sees all the keys that it may read, its logits are dropped after use and recomputed in
the backward pass. Keys that a causal or window mask hides from a whole block are skipped and not masked away. Heads
that do not read one another's logits are independent: `make_plan` says how many groups of (example, key head) run at a
time, so that their logits fit in cache.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import Call, logits_dtype
from attention_lab.attention.engines.flash.operands import finite_max
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions

MAX_LOGITS = 2**20  # logits alive at once: 4 MiB in float32, a share of a last-level cache
BLOCK_QUERIES = 256  # queries of a block, where T is longer
WINDOW_BLOCK_MIN = 64  # queries of a block under a narrow window, at least
MAX_CAUSAL_RUNS = 8  # runs of causal blocks, two or more in each, that see the keys up to the run's end


class Block(NamedTuple):
  """A block of T queries for C groups, and the S keys that they may read; a group has N = K·G query heads."""

  q: Float[Array, "C K G T H"]
  k: Float[Array, "C K S H"]
  v: Float[Array, "C K S V"]
  i: Int[Array, "C T"]  # positions of the queries
  j: Int[Array, "C S"]  # positions of the keys
  readable: Bool[Array, "C #N T S"]
  bias: Float[Array, "#C #N #T #S"] | None
  per_head: Any  # the variant's arrays, `C N …`
  example: Int[Array, " C"]  # index in the batch of each group's example


Equation = Callable[[Block], Array]  # out `C N T V` of a block


def dots(block: Block) -> Float[Array, "C N T S"]:
  """Inner products of queries and keys, in float32 or wider."""
  dtype = logits_dtype(block.q, block.k)
  logits = jnp.einsum("ckgth,cksh->ckgts", block.q, block.k, preferred_element_type=dtype)
  return logits.reshape(logits.shape[0], -1, *logits.shape[3:])


def combine(weights: Float[Array, "C N T S"], block: Block) -> Float[Array, "C N T V"]:
  """Sums of the values with these weights, accumulated in the weights' dtype."""
  (C, N, T, S), K = weights.shape, block.v.shape[1]
  grouped = weights.reshape(C, K, N // K, T, S).astype(block.v.dtype)
  out = jnp.einsum("ckgts,cksv->ckgtv", grouped, block.v, preferred_element_type=weights.dtype)
  return out.reshape(C, N, T, -1)


def add_bias(
  logits: Float[Array, "C N T S"], block: Block, readable: Bool[Array, "C #N T S"] | None = None
) -> Float[Array, "C N T S"]:
  """Logits plus the caller's bias, where there is one.

  readable: keys whose weights do not change with a constant added to the row. Its largest bias is then taken off, so
  that a row of −10⁹ keeps the digits of its logits.
  """
  if block.bias is None:
    return logits
  bias = block.bias.astype(logits.dtype)
  if readable is not None:
    largest = jnp.max(jnp.where(readable, bias, -jnp.inf), axis=-1, keepdims=True)
    bias -= jax.lax.stop_gradient(finite_max(largest))
  return logits + bias


def distance(block: Block) -> Int[Array, "C 1 T S"]:
  """How many positions each key lies behind the query: i − j."""
  return block.i[:, None, :, None] - block.j[:, None, None, :]


def attend_in_blocks(
  equation: Equation,
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K _"],
  v: Float[Array, "B S K V"],
  call: Call,
  *,
  per_head: Any = (),
  mixes_heads: bool = False,
  floats_per_logit: int = 1,
) -> Float[Array, "B T N _"]:
  """Runs `equation` over all blocks.

  Args:
    equation: out `C N T V` of one block.
    q: queries.
    k: keys.
    v: values.
    call: mask, positions and bias; the mask reaches the equation as `Block.readable`.
    per_head: arrays of leading axis N, of which a block gets those of its heads.
    mixes_heads: the equation reads all heads at once, so that only examples are independent.
    floats_per_logit: numbers that the equation keeps alive for each logit; blocks shrink with it.

  """
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  kv_groups = 1 if mixes_heads else K
  plan = make_plan(T, S, B * kv_groups, N // kv_groups, call, floats_per_logit)
  groups = _split_groups(q, k, v, call, kv_groups)
  pairs = tuple(_padded_pairs(array, plan) for array in (call.mask.explicit, call.bias))
  attend = functools.partial(_attend_chunk, equation, call.mask, plan, kv_groups, per_head, pairs)
  if plan.chunk == B * kv_groups:
    out = attend(groups)
  else:
    out = jax.lax.map(attend, jax.tree.map(lambda a: a.reshape(-1, plan.chunk, *a.shape[1:]), groups))
  return jnp.swapaxes(out.reshape(B, N, T, -1), 1, 2)


@dataclasses.dataclass(frozen=True)
class Plan:
  """`blocks` blocks of `size` queries, for `chunk` groups at a time."""

  size: int
  blocks: int
  chunk: int
  recompute: bool  # the backward pass computes logits again instead of storing them
  runs: tuple[tuple[int, int, int], ...]  # (first, last, end): blocks first … last − 1 see the keys before end
  near: tuple[int, int] | None  # under a window: blocks of keys seen to the left and right of the query's block

  @property
  def keys(self) -> int:
    """The most keys that a block sees."""
    return max(end for _, _, end in self.runs) if self.near is None else (sum(self.near) + 1) * self.size


def make_plan(T: int, S: int, groups: int, heads: int, call: Call, floats_per_logit: int = 1) -> Plan:
  """The plan for T queries, S keys and `groups` independent groups of `heads` query heads each."""
  mask, known = call.mask, call.positions.known
  skips = known and mask.causal and mask.prefix is None
  left, right = mask.span or (S, S)
  right = 1 if skips else right
  span = left + right - 2
  size = T if T * S <= BLOCK_QUERIES**2 or T <= BLOCK_QUERIES else BLOCK_QUERIES
  if known and mask.window is not None and size < T:
    size = min(BLOCK_QUERIES, max(WINDOW_BLOCK_MIN, 2 ** math.ceil(math.log2(max(span, 1)))))
  if floats_per_logit > 1:
    size = max(1, min(size, MAX_LOGITS // (heads * floats_per_logit * S)))
  blocks = -(-T // size)
  near = (-(-(left - 1) // size), -(-(right - 1) // size))
  dense = mask.explicit is not None or call.bias is not None
  windowed = known and mask.window is not None and not dense and blocks > 1 and (sum(near) + 1) * size < S
  plan = Plan(size, blocks, 1, True, _runs(blocks, size, S, skips), near if windowed else None)
  floats = heads * floats_per_logit * size * plan.keys
  chunk = max(c for c in range(1, groups + 1) if groups % c == 0 and (c == 1 or c * floats <= MAX_LOGITS))
  return dataclasses.replace(plan, chunk=chunk, recompute=chunk < groups or blocks > 1)


def _runs(blocks: int, size: int, S: int, skips: bool) -> tuple[tuple[int, int, int], ...]:
  """`Plan.runs`: a single run of all blocks, or where causality skips keys up to `MAX_CAUSAL_RUNS` of them."""
  if not skips:
    return ((0, blocks, S),)
  count = max(1, min(blocks // 2, MAX_CAUSAL_RUNS))
  edges = [round(blocks * run / count) for run in range(count + 1)]
  return tuple((first, last, min(S, last * size)) for first, last in itertools.pairwise(edges))


class _Queries(NamedTuple):
  """Queries of the groups, with their positions and masks."""

  q: Array  # C K G T H
  i: Array  # C T
  valid: Array | None
  segments: Array | None


class _Keys(NamedTuple):
  """Keys and values of the groups, with their positions and masks."""

  k: Array  # C K S H
  v: Array  # C K S V
  j: Array  # C S
  valid: Array | None
  segments: Array | None


class _Groups(NamedTuple):
  """C independent groups, each an example and a key head (or all heads, where the equation mixes them)."""

  ids: Array  # C
  prefix: Array | None  # C
  queries: _Queries
  keys: _Keys


def _split_groups(q: Array, k: Array, v: Array, call: Call, kv_groups: int) -> _Groups:
  """Every array with one leading axis of B · kv_groups independent groups."""
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  mask, positions = call.mask, call.positions

  def rows(array: Any) -> Any:
    return None if array is None else jnp.repeat(jnp.broadcast_to(array, (B, *array.shape[1:])), kv_groups, axis=0)

  def heads(array: Array, *split: int) -> Array:
    return jnp.swapaxes(array, 1, 2).reshape(B * kv_groups, *split, array.shape[1], array.shape[3])

  queries = _Queries(
    heads(q, K // kv_groups, N // K), rows(positions.queries(T)), rows(mask.q_valid), rows(mask.q_segments)
  )
  masks = rows(positions.keys(S)), rows(mask.kv_valid), rows(mask.k_segments)
  ids, prefix = jnp.arange(B * kv_groups), rows(mask.prefix)
  return _Groups(ids, prefix, queries, _Keys(heads(k, K // kv_groups), heads(v, K // kv_groups), *masks))


def _attend_chunk(
  equation: Equation, mask: Mask, plan: Plan, kv_groups: int, per_head: Any, pairs: tuple, groups: _Groups
) -> Array:
  """All blocks of queries of one chunk of groups: out `C N T V`."""
  T = groups.queries.i.shape[1]
  local_heads = jax.tree.map(lambda a: a.reshape(kv_groups, -1, *a.shape[1:])[groups.ids % kv_groups], per_head)
  where = (groups.ids // kv_groups, groups.ids % kv_groups, kv_groups)

  def attend(queries: _Queries, keys: _Keys, start: Array | int) -> Array:
    size, seen = queries.i.shape[1], keys.j.shape[1]
    explicit, bias = (_pair_block(array, where, start, size, seen) for array in pairs)
    local = Mask(
      mask.causal, mask.window, groups.prefix, queries.valid, keys.valid, queries.segments, keys.segments, explicit
    )
    readable = local.dense(size, seen, Positions(q=queries.i, k=keys.j))
    if bias is not None:  # −∞ hides a key, from the choice of keys and from losses too
      hidden = bias == -jnp.inf
      readable, bias = readable & ~hidden, jnp.where(hidden, 0, bias)
    return equation(Block(queries.q, keys.k, keys.v, queries.i, keys.j, readable, bias, local_heads, where[0]))

  step = jax.checkpoint(attend) if plan.recompute else attend
  if plan.blocks == 1:
    return step(groups.queries, groups.keys, 0)
  out = _over_blocks(step, plan, groups)
  return jnp.moveaxis(out, 0, 2).reshape(*out.shape[1:3], -1, out.shape[-1])[:, :, :T]


def _over_blocks(step: Callable, plan: Plan, groups: _Groups) -> Array:
  """`blocks C N size V`: each run of blocks is one loop over the keys that it may read."""
  queries = jax.tree.map(lambda a: _split(_pad(a, plan.blocks * plan.size), plan.blocks), groups.queries)
  blocks = (queries, jnp.arange(plan.blocks) * plan.size)
  if plan.near is not None:
    fills = jax.tree.map(lambda _: 0, groups.keys)._replace(j=-1)
    near = jax.tree.map(functools.partial(_neighbours, plan.near, plan), groups.keys, fills)
    return jax.lax.map(lambda block: step(block[0][0], block[1], block[0][1]), (blocks, near))
  parts = []
  for first, last, end in plan.runs:
    keys = jax.tree.map(lambda a, end=end: jax.lax.slice_in_dim(a, 0, end, axis=_time_axis(a)), groups.keys)
    run = jax.tree.map(lambda a, first=first, last=last: a[first:last], blocks)
    parts.append(jax.lax.map(lambda block, keys=keys: step(block[0], keys, block[1]), run))
  return jnp.concatenate(parts)


def _padded_pairs(array: Array | None, plan: Plan) -> Array | None:
  """An array of pairs with its rows padded to whole blocks, so that slicing the last block does not shift it."""
  if array is None or array.shape[2] == 1 or plan.blocks == 1:
    return array
  return _pad(array, plan.blocks * plan.size)


def _pair_block(
  array: Array | None, where: tuple[Array, Array, int], start: Array | int, size: int, seen: int
) -> Array | None:
  """The block `#C #N #T #S` of an array `#B #N #T #S` for the groups `where` = (example, group, groups)."""
  if array is None:
    return None
  example, group, kv_groups = where
  if array.shape[2] > 1:
    array = jax.lax.dynamic_slice_in_dim(array, start, size, axis=2)
  array = array[..., :seen]
  if array.shape[1] > 1:
    array = array.reshape(array.shape[0], kv_groups, -1, *array.shape[2:])
    return array[example if array.shape[0] > 1 else 0, group]
  return array[example] if array.shape[0] > 1 else array


def _time_axis(array: Array) -> int:
  """The axis of tokens: arrays with heads are `C K … T H`, the others `C T`."""
  return array.ndim - 2 if array.ndim > 2 else 1


def _pad(array: Array, length: int, before: int = 0, fill: int = 0) -> Array:
  """The array with its time axis padded (or cut, on the right) to `length`, of which `before` in front."""
  axis = _time_axis(array)
  array = jax.lax.slice_in_dim(array, 0, min(array.shape[axis], length - before), axis=axis)
  widths = [(0, 0)] * array.ndim
  widths[axis] = (before, length - before - array.shape[axis])
  return jnp.pad(array, widths, constant_values=fill)


def _split(array: Array, blocks: int) -> Array:
  """The array with its time axis cut into blocks, the axis of blocks in front."""
  axis = _time_axis(array)
  return jnp.moveaxis(array.reshape(*array.shape[:axis], blocks, -1, *array.shape[axis + 1 :]), axis, 0)


def _neighbours(near: tuple[int, int], plan: Plan, array: Array, fill: int) -> Array:
  """The keys within the window of each block of queries: overlapping slices, whose gradient is a sum of pads."""
  left, right = near
  count = left + plan.blocks + right
  slices = _split(_pad(array, count * plan.size, before=left * plan.size, fill=fill), count)
  shifted = [slices[shift : shift + plan.blocks] for shift in range(left + 1 + right)]
  return jnp.concatenate(shifted, axis=_time_axis(array) + 1)
