"""Mixture of block attention: each query reads its own block, and the past blocks whose mean key fits it best.

Lu et al. 2025, MoBA, https://arxiv.org/abs/2502.13189, section 2.2.

    out_i = Σ_{j ≤ i: J = I or J ∈ top_i} softmax_j(s · q_i·k_j) v_j,   I = ⌊i/b⌋, J = ⌊j/b⌋, s = 1/√H
    top_i = the `top_k` − 1 blocks J < I with the largest q_i·k̄_J, ties kept;  k̄_J the mean of J's valid keys

The choice is each query head's own, and has no gradient. Time O(T·(`top_k`·b + S/b)), of which S/b is the choice: the
blocks chosen are gathered. Where the choice of any query ties, or positions are given (in decoding), the call is a
masked map, O(T·S), so that T² is claimed and counted: what a call may cost. Memory O(T); decoding state O(S). Causal by
construction, honours padding; refuses every other pattern, a bias, cross-attention and given positions.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Call, Claims, logits_dtype, refuse_positions
from attention_lab.attention.engines import block_sparse
from attention_lab.attention.engines.chunked import dots
from attention_lab.attention.engines.flash import tiles
from attention_lab.attention.families import segment_mean, softmax
from attention_lab.attention.families.scored import ScaledDotProduct
from attention_lab.attention.families.sparse_support import top_k_indices, top_k_mask


@dataclasses.dataclass(frozen=True)
class Moba(ScaledDotProduct, at_least_one=("block", "top_k")):
  block: int = 64  # b, in positions
  top_k: int = 3  # blocks that each query reads, the own one counted

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid"})
    return Claims(masks=masks, requires_causal=True, cross=False, exactness="other")

  def with_aux(self, params, q, k, v, call: Call):
    refuse_positions(self, call)
    return super().with_aux(params, q, k, v, call)

  def attend(self, params, q, k, v, call: Call):
    valid = jnp.broadcast_to(segment_mean.valid_keys(call, k.shape[1]), k.shape[:2])
    masked = lambda q, k, v: self._masked(params, q, k, v, call, valid)
    if not call.positions.known or k.shape[1] <= self.block * self.top_k:  # few enough keys that all past ones are read
      return masked(q, k, v)
    chosen, tied = self._chosen(q, k, valid, call.mask.q_valid)
    form = block_sparse.BlockSparseConfig(self.block, softmax.scale(self.scale, q), causal=True)
    sparse = lambda q, k, v: block_sparse.attend(q, k, v, chosen, valid, form)
    return jax.lax.cond(tied, jax.checkpoint(masked), sparse, q, k, v)

  def logits(self, params, block):
    return dots(block) * softmax.scale(self.scale, block.q[..., :-1])

  def readable(self, params, block, positions):
    keys = jnp.swapaxes(block.k.astype(logits_dtype(block.k)), 1, 2)
    (means,), occupied = segment_mean.by_runs(self.block, keys[:, :, 0, -1] > 0, keys)
    I, J = block.i[:, None, :, None] // self.block, jnp.arange(occupied.shape[1])[None, None, None]
    chosen = J == I
    if self.top_k > 1:
      fit = dots(block._replace(k=jnp.swapaxes(means, 1, 2)))
      chosen = chosen | top_k_mask(fit, occupied[:, None, None] & (J < I), self.top_k - 1)
    return jnp.repeat(chosen, self.block, axis=-1)[..., : block.k.shape[2]]

  def _masked(self, params, q, k, v, call, valid):
    """The output by a masked map of all pairs, of which those in the blocks chosen count."""
    flag = jnp.broadcast_to(valid[:, :, None, None], (*k.shape[:3], 1)).astype(k.dtype)
    q, k = jnp.pad(q, ((0, 0), (0, 0), (0, 0), (0, 1))), jnp.concatenate([k, flag], axis=-1)
    return super().attend(params, q, k, v, call)

  def _chosen(self, q, k, valid, q_valid):
    """The blocks that each query reads, `B N T M`, −1 for none, and whether the choice of some query ties."""
    (B, T, N, H), K = q.shape, k.shape[2]
    real = jnp.ones((B, T), bool) if q_valid is None else jnp.broadcast_to(q_valid, (B, T))
    I = jnp.where(real, jnp.arange(T)[None] // self.block, -1)
    own_block = jnp.broadcast_to(I[:, None, :, None], (B, N, T, 1))
    if self.top_k == 1:
      return own_block, False
    (means,), occupied = segment_mean.by_runs(self.block, valid, jax.lax.stop_gradient(k))

    def best(query):
      q, I = query
      past = occupied & (jnp.arange(occupied.shape[1])[None] < I[:, None])
      fit = jnp.einsum("bkgh,bjkh->bkgj", q, means)
      return top_k_indices(fit, past[:, None, None], self.top_k - 1)

    queries = jax.lax.stop_gradient(q).astype(means.dtype).reshape(B, T, K, N // K, H)
    at_a_time = max(1, tiles.MAX_LOGITS // (B * N * occupied.shape[1]))
    chosen, tied = jax.lax.map(best, (jnp.swapaxes(queries, 0, 1), I.T), batch_size=min(T, at_a_time))
    chosen = jnp.moveaxis(chosen, 0, 3).reshape(B, N, T, -1)
    return jnp.concatenate([own_block, chosen], axis=-1), jnp.any(tied)
