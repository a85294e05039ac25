"""CoPE: contextual position encoding; how far a key lies behind is counted in the keys that the query cares for.

Golovneva et al. 2024, https://arxiv.org/abs/2405.18719, section 4.

    out_i = Σ_j softmax_j(s_ij + e_i(p_ij) + b_ij) v_j,   s_ij = q_i·k_j / √H,   p_ij = min(Σ_{l ≥ j} σ(s_il), P − 1)

e_i(p) is q_i·E_p, interpolated linearly between whole p; l runs over the readable keys in the order of the array, and
the table E (`codes`, P H) is shared by all heads. Time O(T·S), memory O(S + P) for each block of queries; decoding
state O(S). Honours causal (and needs it), windows, padding, segments and a bias; refuses the rest.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.families import causal_cumsum


@dataclasses.dataclass(frozen=True)
class Cope(causal_cumsum.CausalCumsum, at_least_one=("positions",)):
  undecayed: ClassVar[frozenset[str]] = frozenset({"codes"})

  positions: int = 64  # P, codes; farther keys share the last one

  def init(self, key, dims):
    return {"codes": 0.02 * jax.random.normal(key, (self.positions, dims.head))}

  def floats_per_logit(self, q):
    return 2

  def logits(self, params, block):
    scores = super().logits(params, block)
    gates = jnp.where(block.readable, jax.nn.sigmoid(scores), 0.0)
    distances = jnp.minimum(gates + causal_cumsum.reverse_cumsum(gates, block.readable), self.positions - 1.0)
    codes = params["codes"].astype(scores.dtype)
    table = jnp.einsum("ckgth,ph->ckgtp", block.q.astype(scores.dtype), codes).reshape(*scores.shape[:3], -1)
    whole = jax.lax.stop_gradient(jnp.floor(distances))
    near = jnp.take_along_axis(table, whole.astype(jnp.int32), axis=-1)
    far = jnp.take_along_axis(table, jnp.minimum(whole.astype(jnp.int32) + 1, self.positions - 1), axis=-1)
    return scores + near + (distances - whole) * (far - near)
