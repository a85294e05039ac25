"""Mixture of block attention: each query reads its own block, and the past blocks whose mean key fits it best.

Lu et al. 2025, MoBA, https://arxiv.org/abs/2502.13189, section 2.2.

    out_i = Σ_{j ≤ i: J = I or J ∈ top_i} softmax_j(s · q_i·k_j) v_j,   I = ⌊i/b⌋, J = ⌊j/b⌋, s = 1/√H
    top_i = the `top_k` − 1 blocks J < I with the largest q_i·k̄_J, ties kept;  k̄_J the mean of J's valid keys

The choice is each query head's own, and has no gradient. Time O(T·S), computed as a masked map; decoding state O(S).
Causal by construction, honours padding; refuses every other pattern, a bias, cross-attention and given positions.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import Call, Claims, logits_dtype
from attention_lab.attention.primitives import cells, softmax
from attention_lab.attention.primitives.blocks import dots
from attention_lab.attention.primitives.places import refuse_positions
from attention_lab.attention.primitives.scored import Scaled
from attention_lab.attention.primitives.selection import largest


@dataclasses.dataclass(frozen=True)
class Moba(Scaled):
  block: int = 64  # b, in positions
  top_k: int = 3  # blocks that each query reads, the own one counted

  def __post_init__(self):
    if self.block < 1 or self.top_k < 1:
      raise ValueError(f"block={self.block} and top_k={self.top_k} must be at least 1")

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid"})
    return Claims(masks=masks, requires_causal=True, cross=False, exactness="other")

  def with_aux(self, params, q, k, v, call: Call):
    refuse_positions(self, call)
    return super().with_aux(params, q, k, v, call)

  def attend(self, params, q, k, v, call: Call):
    valid = jnp.broadcast_to(cells.valid_keys(call, k.shape[1]), k.shape[:2])
    flag = jnp.broadcast_to(valid[:, :, None, None], (*k.shape[:3], 1)).astype(k.dtype)
    q, k = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, 1))), jnp.concatenate([k, flag], axis=-1)
    return super().attend(params, q, k, v, call)

  def logits(self, params, block):
    return dots(block) * softmax.scale(self.scale, block.q[..., :-1])

  def reads(self, params, block, positions):
    keys = jnp.swapaxes(block.k.astype(logits_dtype(block.k)), 1, 2)
    (means,), occupied = cells.by_runs(self.block, keys[:, :, 0, -1] > 0, keys)
    I, J = block.i[:, None, :, None] // self.block, jnp.arange(occupied.shape[1])[None, None, None]
    chosen = J == I
    if self.top_k > 1:
      fit = dots(block._replace(k=jnp.swapaxes(means, 1, 2)))
      chosen = chosen | largest(fit, occupied[:, None, None] & (J < I), self.top_k - 1)
    return jnp.repeat(chosen, self.block, axis=-1)[..., : block.k.shape[2]]
