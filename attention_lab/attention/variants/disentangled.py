"""Disentangled attention, DeBERTa: content reads content, position reads content, content reads position.

He et al. 2021, https://arxiv.org/abs/2006.03654, section 3.1, equation 4.

    out_i = Σ_j softmax_j(s · (q_i·k_j + q_i·A_n[δ(i−j)] + k_j·B_n[δ(j−i)]) + b_ij) v_j,   s = 1/√(3H)
    δ(d) = clip(d + m, 0, 2m − 1)

Time O(T·S), memory O(S·H + S·m) for each block of queries; decoding state O(S). Honours every mask and a bias; refuses
nothing. Departure: the tables A (`keys`) and B (`queries`), 2m rows of width H for each head, are learned as they are,
where the paper projects one table with the layer's matrices.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.chunked import distance, dots
from attention_lab.attention.families.scored import Scored


@dataclasses.dataclass(frozen=True)
class Disentangled(Scored, at_least_one=("max_distance",)):
  undecayed: ClassVar[frozenset[str]] = frozenset({"per_head/keys", "per_head/queries"})

  max_distance: int = 128  # m; farther tokens share the outermost rows
  scale: float | None = None  # factor of the logits; None = 1/√(3H)

  def claims(self):
    return dataclasses.replace(super().claims(), encodes_positions=True, exactness="exact")

  def init(self, key, dims):
    shape = (dims.heads, 2 * self.max_distance, dims.head)
    keys, queries = (0.02 * jax.random.normal(k, shape) for k in jax.random.split(key))
    return {"per_head": {"keys": keys, "queries": queries}}

  def floats_per_logit(self, q):
    return 2

  def logits(self, params, block):
    C, K, G, T, H = block.q.shape
    dtype = logits_dtype(block.q, block.k)
    q, k = block.q.astype(dtype), block.k.astype(dtype)
    keys, queries = (block.per_head[name].astype(dtype).reshape(C, K, G, -1, H) for name in ("keys", "queries"))
    to_position = jnp.einsum("ckgth,ckgrh->ckgtr", q, keys).reshape(C, K * G, T, -1)
    from_position = jnp.einsum("cksh,ckgrh->ckgsr", k, queries).reshape(C, K * G, k.shape[2], -1)
    off = distance(block)
    extra = jnp.take_along_axis(to_position, self._row(off), axis=-1)
    extra += jnp.swapaxes(jnp.take_along_axis(from_position, jnp.swapaxes(self._row(-off), 2, 3), axis=-1), 2, 3)
    return (dots(block) + extra) * ((3 * H) ** -0.5 if self.scale is None else self.scale)

  def _row(self, off):
    """The table's row δ(d) of each difference d."""
    return jnp.clip(off + self.max_distance, 0, 2 * self.max_distance - 1)
