"""Attention in blocks of queries: a variant writes its equation for one dense block, this engine runs it over all.

Memory is linear in T: a block of queries sees all the keys that it may read, its logits are dropped after use and
computed again in the backward pass. Keys that a causal or window mask hides from a whole block are skipped, not
masked away. Heads that do not read one another's logits are independent, so that groups of (example, key head) run
one after the other once all of them would not fit in cache. Rabe and Staats 2021 (https://arxiv.org/abs/2112.05682),
with rows kept whole.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import Call, logits_dtype
from attention_lab.attention.engines import chunked_plan as plans
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


class Block(NamedTuple):
  """Queries of C groups and all keys that they may read; a group has N = K·G query heads."""

  q: Float[Array, "C K G T H"]
  k: Float[Array, "C K S H"]
  v: Float[Array, "C K S V"]
  i: Int[Array, "C T"]  # positions of the queries
  j: Int[Array, "C S"]  # positions of the keys
  readable: Bool[Array, "C #N T S"]
  bias: Float[Array, "#C #N #T #S"] | None
  per_head: Any  # the variant's own arrays, `C N …`
  example: Int[Array, " C"]  # the batch's example that each group belongs to


Equation = Callable[[Block], Array]


def dots(block: Block) -> Float[Array, "C N T S"]:
  """Inner products of queries and keys, in float32 or wider."""
  dtype = logits_dtype(block.q, block.k)
  logits = jnp.einsum("ckgth,cksh->ckgts", block.q, block.k, preferred_element_type=dtype)
  return logits.reshape(logits.shape[0], -1, *logits.shape[3:])


def combine(weights: Float[Array, "C N T S"], block: Block) -> Float[Array, "C N T V"]:
  """Weighted sums of the values, accumulated in the weights' dtype."""
  (C, N, T, S), K = weights.shape, block.v.shape[1]
  grouped = weights.reshape(C, K, N // K, T, S).astype(block.v.dtype)
  out = jnp.einsum("ckgts,cksv->ckgtv", grouped, block.v, preferred_element_type=weights.dtype)
  return out.reshape(C, N, T, -1)


def biased(logits: Float[Array, "C N T S"], block: Block) -> Float[Array, "C N T S"]:
  """Adds the caller's bias, where there is one."""
  return logits if block.bias is None else logits + block.bias.astype(logits.dtype)


def distance(block: Block) -> Int[Array, "C 1 T S"]:
  """I − j: how far each key lies behind the query."""
  return block.i[:, None, :, None] - block.j[:, None, None, :]


def attend_in_blocks(
  equation: Equation,
  q: Array,
  k: Array,
  v: Array,
  call: Call,
  *,
  per_head: Any = (),
  mixes_heads: bool = False,
  depth: int = 1,
) -> Float[Array, "B T N V"]:
  """Runs `equation` over blocks: q `B T N H`, k `B S K H`, v `B S K V`; per_head: arrays of leading axis N.

  mixes_heads: the equation reads all heads at once, so that only examples are independent. depth: numbers that the
  equation keeps alive for each logit, so that blocks shrink with it.
  """
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  kinds = 1 if mixes_heads else K
  plan = plans.make(T, S, B * kinds, N // kinds, call, depth)
  groups = _in_groups(q, k, v, call, kinds)
  pairs = tuple(_padded_pairs(array, plan) for array in (call.mask.explicit, call.bias))
  attend = functools.partial(_attend_chunk, equation, call.mask, plan, kinds, per_head, pairs)
  if plan.chunk == B * kinds:
    out = attend(groups)
  else:
    out = jax.lax.map(attend, jax.tree.map(lambda a: a.reshape(-1, plan.chunk, *a.shape[1:]), groups))
  return jnp.swapaxes(out.reshape(B, N, T, -1), 1, 2)


class _Queries(NamedTuple):
  q: Array  # C K G T H
  i: Array  # C T
  valid: Array | None
  segments: Array | None


class _Keys(NamedTuple):
  k: Array  # C K S H
  v: Array  # C K S V
  j: Array  # C S
  valid: Array | None
  segments: Array | None


class _Groups(NamedTuple):
  ids: Array  # C
  prefix: Array | None  # C
  queries: _Queries
  keys: _Keys


def _in_groups(q: Array, k: Array, v: Array, call: Call, kinds: int) -> _Groups:
  """Brings every array to one leading axis of B · kinds independent groups."""
  (B, T, N, _), (S, K) = q.shape, k.shape[1:3]
  mask, positions = call.mask, call.positions

  def rows(array: Array | None) -> Array | None:
    return None if array is None else jnp.repeat(jnp.broadcast_to(array, (B, *array.shape[1:])), kinds, axis=0)

  def heads(array: Array, *split: int) -> Array:
    return jnp.swapaxes(array, 1, 2).reshape(B * kinds, *split, array.shape[1], array.shape[3])

  queries = _Queries(
    heads(q, K // kinds, N // K), rows(positions.queries(T)), rows(mask.q_valid), rows(mask.q_segments)
  )
  keys = rows(positions.keys(S)), rows(mask.kv_valid), rows(mask.k_segments)
  return _Groups(
    jnp.arange(B * kinds), rows(mask.prefix), queries, _Keys(heads(k, K // kinds), heads(v, K // kinds), *keys)
  )


def _attend_chunk(
  equation: Equation, mask: Mask, plan: plans.Plan, kinds: int, per_head: Any, pairs: tuple, groups: _Groups
) -> Array:
  """All blocks of queries of one chunk of groups: out `C N T V`."""
  T = groups.queries.i.shape[1]
  own = jax.tree.map(lambda a: a.reshape(kinds, -1, *a.shape[1:])[groups.ids % kinds], per_head)
  where = (groups.ids // kinds, groups.ids % kinds, kinds)

  def attend(queries: _Queries, keys: _Keys, start: Array | int) -> Array:
    size, seen = queries.i.shape[1], keys.j.shape[1]
    explicit, bias = (_pair_block(array, where, start, size, seen) for array in pairs)
    local = Mask(
      mask.causal, mask.window, groups.prefix, queries.valid, keys.valid, queries.segments, keys.segments, explicit
    )
    readable = local.dense(size, seen, Positions(q=queries.i, k=keys.j))
    return equation(Block(queries.q, keys.k, keys.v, queries.i, keys.j, readable, bias, own, where[0]))

  step = jax.checkpoint(attend) if plan.recompute else attend
  if plan.blocks == 1:
    return step(groups.queries, groups.keys, 0)
  out = _over_blocks(step, plan, groups)
  return jnp.moveaxis(out, 0, 2).reshape(*out.shape[1:3], -1, out.shape[-1])[:, :, :T]


def _over_blocks(step: Callable, plan: plans.Plan, groups: _Groups) -> Array:
  """`blocks C N size V`: each run of blocks is one loop over the keys that it may read."""
  queries = jax.tree.map(lambda a: plans.split(plans.pad(a, plan.blocks * plan.size), plan.blocks), groups.queries)
  blocks = (queries, jnp.arange(plan.blocks) * plan.size)
  if plan.near is not None:
    fills = _Keys(0, 0, -1, None if groups.keys.valid is None else 0, None if groups.keys.segments is None else 0)
    near = jax.tree.map(lambda a, fill: plans.neighbours(a, plan, fill), groups.keys, fills)
    return jax.lax.map(lambda each: step(each[0][0], each[1], each[0][1]), (blocks, near))
  parts = []
  for first, last, end in plan.runs:
    keys = jax.tree.map(lambda a, end=end: jax.lax.slice_in_dim(a, 0, end, axis=plans.time_axis(a)), groups.keys)
    some = jax.tree.map(lambda a, first=first, last=last: a[first:last], blocks)
    parts.append(jax.lax.map(lambda each, keys=keys: step(each[0], keys, each[1]), some))
  return jnp.concatenate(parts)


def _padded_pairs(array: Array | None, plan: plans.Plan) -> Array | None:
  """Rows padded to whole blocks, so that slicing the last block does not shift it."""
  if array is None or array.shape[2] == 1 or plan.blocks == 1:
    return array
  return plans.pad(array, plan.blocks * plan.size)


def _pair_block(
  array: Array | None, where: tuple[Array, Array, int], start: Array | int, size: int, seen: int
) -> Array | None:
  """The block `#C #N #T #S` of an array `#B #N #T #S` for the groups at `where`."""
  if array is None:
    return None
  example, kind, kinds = where
  if array.shape[2] > 1:
    array = jax.lax.dynamic_slice_in_dim(array, start, size, axis=2)
  array = array[..., :seen]
  if array.shape[1] > 1:
    array = array.reshape(array.shape[0], kinds, -1, *array.shape[2:])
    return array[example if array.shape[0] > 1 else 0, kind]
  return array[example] if array.shape[0] > 1 else array
