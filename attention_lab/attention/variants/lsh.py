"""LSH attention: tokens read those whose query hashes into the same bucket.

Kitaev et al. 2020, Reformer, https://arxiv.org/abs/2001.04451, section 2.

    out_i = Σ_{j ≠ i: ∃r: h_r(q_i) = h_r(q_j)} softmax_j(s · q_i·q̂_j + b_ij) v_j,   h_r(q) = argmax [q·R_r; −q·R_r]

q̂ = q / √(‖q‖² + 10⁻⁶), s = 1/√H: queries are the keys. A token reads itself only where it can read no other. R_r are
random, drawn at init, one for each of the rounds r and shared by all heads. Time O(T·S), computed as a masked map: one
bucket may hold all tokens, so that tiles of sorted tokens, their number being static, could leave out none. Decoding
state O(S). Honours every mask and a bias; refuses cross-attention and grouped heads. Departures: buckets are exact
sets, where the paper sorts by bucket and attends within chunks; a key met in several rounds counts once.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims, logits_dtype
from attention_lab.attention.engines.chunked import distance
from attention_lab.attention.families.qk_transforms import l2_normalize
from attention_lab.attention.families.scored import QueriesAsKeys


@dataclasses.dataclass(frozen=True)
class Lsh(QueriesAsKeys):
  hashes: int = 2  # rounds r
  buckets: int = 8  # of each round

  def __post_init__(self):
    if self.hashes < 1 or self.buckets < 2 or self.buckets % 2:
      raise ValueError(f"buckets={self.buckets} must be even and hashes={self.hashes} at least 1")

  def init(self, key, dims: Dims):
    return {"fixed": {"rotations": jax.random.normal(key, (self.hashes, dims.head, self.buckets // 2))}}

  def logits(self, params, block):
    return super().logits(params, block._replace(k=l2_normalize(block.k)))

  def readable(self, params, block, positions):
    queries, keys = self._hashed(params, block.q[:, :, 0]), self._hashed(params, block.k)
    shared = (queries[..., r][..., None] == keys[..., r][..., None, :] for r in range(self.hashes))
    bucket = block.readable & functools.reduce(operator.or_, shared)
    others = bucket & (distance(block) != 0)
    return jnp.where(jnp.any(others, axis=-1, keepdims=True), others, bucket)

  def _hashed(self, params, x):
    """The bucket of each token in each round: `C N T rounds`."""
    dtype = logits_dtype(x)
    turned = jnp.einsum("cnth,rhb->cntrb", x.astype(dtype), params["fixed"]["rotations"].astype(dtype))
    return jnp.argmax(jnp.concatenate([turned, -turned], axis=-1), axis=-1)
