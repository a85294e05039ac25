"""Variants that read near keys one by one and means of cells of the others, in one softmax."""

import abc
import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Call, Claims, Params, refuse_positions
from attention_lab.attention.engines.chunked import Block, attend_in_blocks, combine, dots
from attention_lab.attention.families import segment_mean, softmax
from attention_lab.attention.families.scored import ScaledDotProduct
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions


@dataclasses.dataclass(frozen=True)
class Summarised(ScaledDotProduct):
  """out_i = Σ_{j near} w_ij v_j + Σ_{c seen} w_ic v̄_c, w_i the softmax of s·q_i·k_j and s·q_i·k̄_c together.

  k̄_c, v̄_c are means over the valid tokens of a cell; a cell without any is not read. Memory O(S) for each block of
  queries. Honours padding alone, for a mean mixes its tokens.
  """

  def claims(self) -> Claims:
    return Claims(masks=frozenset({"q_valid", "kv_valid"}), cross=False, decode=False, exactness="other")

  @abc.abstractmethod
  def means(self, valid: Bool[Array, "#B S"], k: Array, v: Array, positions: Positions) -> segment_mean.Means:
    """Means of keys and values over the cells, and which cells have a token."""

  @abc.abstractmethod
  def near(self, block: Block, positions: Positions) -> Bool[Array, "C 1 T S"]:
    """The keys that a query reads one by one."""

  def seen(self, block: Block, count: int, positions: Positions) -> Bool[Array, "#C 1 #T M"]:
    """The cells, of `count`, whose means a query reads: all by default."""
    return jnp.ones((1, 1, 1, count), bool)

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    return True

  def attend(self, params: Params, q: Array, k: Array, v: Array, call: Call) -> Float[Array, "B T N V"]:
    refuse_positions(self, call)
    N, group, scale = q.shape[2], q.shape[2] // k.shape[2], softmax.scale(self.scale, q)
    means, occupied = self.means(segment_mean.valid_keys(call, k.shape[1]), k, v, call.positions)
    k_means, v_means = (jnp.swapaxes(mean.astype(a.dtype), 1, 2) for mean, a in zip(means, (k, v), strict=True))
    occupied = jnp.broadcast_to(occupied, (len(k), occupied.shape[1]))

    def equation(block: Block) -> Array:
      group_index, S = (block.example, block.per_head[:, 0] // group), block.k.shape[2]
      far = block._replace(k=k_means[group_index][:, None], v=v_means[group_index][:, None])
      near = block.readable & self.near(block, call.positions)
      seen = self.seen(block, occupied.shape[1], call.positions) & occupied[block.example][:, None, None]
      readable = jnp.concatenate([near, jnp.broadcast_to(seen, (*near.shape[:3], seen.shape[3]))], axis=-1)
      weights = softmax.weights(jnp.concatenate([dots(block), dots(far)], axis=-1) * scale, readable)
      return combine(weights[..., :S], block) + combine(weights[..., S:], far)

    mask = call.mask & Mask(window=self.span_at(call.positions))
    out = attend_in_blocks(equation, q, k, v, call._replace(mask=mask), per_head=jnp.arange(N))
    return out if mask.q_valid is None else jnp.where(mask.q_valid[:, :, None, None], out, 0.0)
