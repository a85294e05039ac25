"""Variants that score every pair of a query and a key and normalise the scores, computed in chunks of queries.

A variant overrides what differs from softmax attention: its logits, its normaliser, or its pattern.
"""

import abc
import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention import cache
from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims, Params, State
from attention_lab.attention.engines.chunked import Block, add_bias, attend_in_blocks, combine, dots
from attention_lab.attention.families import softmax
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


@dataclasses.dataclass(frozen=True)
class Scored(Attention):
  """out_i = Σ_j w_ij v_j, w_i = normalised(logits_i) over the keys that the mask and `pattern` leave.

  Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask and a bias.
  """

  shift_invariant: ClassVar[bool] = True  # a constant added to all logits of a row changes no weight

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other")

  @abc.abstractmethod
  def logits(self, params: Params, block: Block) -> Float[Array, "C N T S"]:
    """The scores of a block, without the caller's bias."""

  def weights(self, logits: Float[Array, "C N T S"], readable: Bool[Array, "C #N T S"]) -> Float[Array, "C N T S"]:
    """Logits to weights; 0 where not readable."""
    return softmax.weights(logits, readable)

  def readable(self, params: Params, block: Block, positions: Positions) -> Bool[Array, "C #N T S"] | bool:
    """The variant's own mask on a block, beside the caller's: here its pattern."""
    return self.pattern(params, block.i[:, None, :, None], block.j[:, None, None, :])

  def span(self) -> int | None:
    """The window W that holds the pattern, |i − j| < W, beyond which no block is computed; None = unbounded.

    A cache of W keys, a ring, is then enough to decode.
    """
    return None

  def span_at(self, positions: Positions) -> int | None:
    """The span in a call at these positions, which may know more than the fields do."""
    return self.span()

  def capacity(self, dims: Dims) -> int:
    return self.span() or dims.max_len

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Array:
    def equation(block: Block) -> Array:
      readable = block.readable & self.readable(params, block, call.positions)
      logits = add_bias(self.logits(params, block), block, readable if self.shift_invariant else None)
      return combine(self.weights(logits, readable), block)

    if q is None:  # v is the only projection: the engine takes empty queries and keys
      k = jnp.zeros_like(v[..., :1])
      q = jnp.zeros((len(v), call.positions.queries(v.shape[1]).shape[1], *k.shape[2:]), k.dtype)
    mask = call.mask & Mask(window=self.span_at(call.positions))
    per_head = params.get("per_head", params.get("fixed", {}).get("per_head", ()))
    call, size = call._replace(mask=mask), self.floats_per_logit(q)
    return attend_in_blocks(equation, q, k, v, call, per_head=per_head, floats_per_logit=size)

  def floats_per_logit(self, q: Array) -> int:
    """Memory of a block: how many numbers the equation keeps alive for each logit; blocks shrink with it."""
    return 1


@dataclasses.dataclass(frozen=True)
class ScaledDotProduct(Scored):
  """Scores are inner products of queries and keys times `scale`."""

  scale: float | None = dataclasses.field(default=None, kw_only=True)  # factor of the logits; None = 1/√H

  def logits(self, params: Params, block: Block) -> Float[Array, "C N T S"]:
    return dots(block) * softmax.scale(self.scale, block.q)


@dataclasses.dataclass(frozen=True)
class QueriesAsKeys(ScaledDotProduct):
  """Queries stand for keys, so that there is no key projection. Refuses cross-attention and grouped heads.

  A variant without queries too, `projections = "vo"`, takes the values for both. Decoding caches the queries as keys.
  """

  projections: ClassVar[str] = "qvo"

  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), cross=False, supports_gqa=False)

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Any:
    """Attention of the queries to themselves; k is None, or the cached queries in decoding."""
    if "q" not in self.projections:
      q, k = (v if q is None else q), v
    return super().attend(params, q, q if k is None else k, v, call)

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> State:
    width = dims.head if "q" in self.projections else 0
    return cache.empty(batch, self.capacity(dims), dims.kv_heads, (width, dims.value), dtype)

  def extend(self, params: Params, state: State, q: Any, k: Any, v: Any, **demands: Any) -> tuple[State, Any]:
    return super().extend(params, state, v if q is None else q, q, v, **demands)
