"""Shared queries and keys: each token asks with the vector that it is found by.

Kitaev et al. 2020, https://arxiv.org/abs/2001.04451, section 2, "shared-QK", without the unit length of keys.

    out_i = Σ_j softmax_j(q_i·q_j / √H + b_ij) v_j

With `values` the same vector is the value too, q = k = v, of width V: nonlinear in it. Time O(T·S), memory O(S) for
each block of queries; decoding state O(S). Honours every mask and a bias; refuses cross-attention and fewer key heads
than query heads. Departure: a token may read itself, where Reformer lets it do so only if there is nothing else.
"""

import dataclasses

from attention_lab.attention.families.scored import QueriesAsKeys


@dataclasses.dataclass(frozen=True)
class SharedQk(QueriesAsKeys):
  values: bool = False  # whether values are shared with queries and keys

  @property
  def projections(self):
    """Queries stand for keys; values may stand for both."""
    return "vo" if self.values else "qvo"

  def claims(self):
    return dataclasses.replace(super().claims(), exactness="exact", values="nonlinear" if self.values else "linear")
