"""Variants that score every pair and normalise the scores: they name what differs from softmax attention, the rest is
here.
"""

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims, Params
from attention_lab.attention.engines.chunked import Block, attend_in_blocks, biased, combine, dots
from attention_lab.attention.families import softmax
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


@dataclasses.dataclass(frozen=True)
class Scored(Attention):
  """out_i = Σ_j w_ij v_j, w_i = normalised(logits_i) over the keys that the mask and `pattern` leave.

  Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask and a bias.
  """

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other")

  @abc.abstractmethod
  def logits(self, params: Params, block: Block) -> Float[Array, "C N T S"]:
    """The scores of a block, without the caller's bias."""

  def weights(self, logits: Float[Array, "C N T S"], readable: Bool[Array, "C #N T S"]) -> Float[Array, "C N T S"]:
    """Logits to weights; 0 where not readable."""
    return softmax.weights(logits, readable)

  def reads(self, params: Params, block: Block, positions: Positions) -> Bool[Array, "C #N T S"] | bool:
    """Which pairs of a block the variant itself lets be read: its pattern."""
    return self.pattern(params, block.i[:, None, :, None], block.j[:, None, None, :])

  def span(self) -> int | None:
    """W if the pattern lies within |i − j| < W: blocks beyond are not computed, and a ring of W decodes."""
    return None

  def reach(self, positions: Positions) -> int | None:
    """The span in a call at these positions."""
    return self.span()

  def capacity(self, dims: Dims) -> int:
    return self.span() or dims.max_len

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Array:
    def equation(block: Block) -> Array:
      readable = block.readable & self.reads(params, block, call.positions)
      return combine(self.weights(biased(self.logits(params, block), block), readable), block)

    if q is None:  # no projections but v: the engine wants some
      k = jnp.zeros_like(v[..., :1])
      q = jnp.zeros((len(v), call.positions.queries(v.shape[1]).shape[1], *k.shape[2:]), k.dtype)
    mask = call.mask & Mask(window=self.reach(call.positions))
    per_head = params.get("per_head", params.get("fixed", {}).get("per_head", ()))
    return attend_in_blocks(equation, q, k, v, call._replace(mask=mask), per_head=per_head, depth=self.depth(q))

  def depth(self, q: Array) -> int:
    """Numbers alive for each logit while a block is computed."""
    return 1


@dataclasses.dataclass(frozen=True)
class Scaled(Scored):
  """Scores are inner products times `scale`."""

  scale: float | None = dataclasses.field(default=None, kw_only=True)  # factor of the logits; None = 1/√H

  def logits(self, params: Params, block: Block) -> Float[Array, "C N T S"]:
    return dots(block) * softmax.scale(self.scale, block.q)
