"""Softmax attention with learned relative positions in keys and values.

Shaw et al. 2018, https://arxiv.org/abs/1803.02155, section 3.2.

    out_i = Σ_j softmax_j(q_i·(k_j + a^K_d) / √H) (v_j + a^V_d),   d = clip(j − i, −c, c)      (equations 3 to 5)

The tables a^K `2c+1 H` and a^V `2c+1 V` are shared by all heads, as in the paper. Time O(T·S·(H + V)); memory O(S)
for each block of queries; decoding state O(S). Honours every mask and a bias; refuses nothing. It is affine in v:
equal values do not pass unchanged.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims, logits_dtype
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks, combine, distance, dots
from attention_lab.attention.families import softmax


@dataclasses.dataclass(frozen=True)
class Relative(Attention, at_least_one=("clip",)):
  undecayed: ClassVar[frozenset[str]] = frozenset({"keys", "values"})

  clip: int = 16  # c, the largest distance told apart, in positions
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, encodes_positions=True, values="affine")

  def init(self, key, dims: Dims):
    keys, values = jax.random.split(key)
    rows = 2 * self.clip + 1
    return {
      "keys": 0.02 * jax.random.normal(keys, (rows, dims.head)),
      "values": 0.02 * jax.random.normal(values, (rows, dims.value)),
    }

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      row = self.clip + jnp.clip(-distance(block), -self.clip, self.clip)
      logits = (dots(block) + _by_distance(block.q, params["keys"], row)) * scale
      weights = softmax.weights(add_bias(logits, block, block.readable), block.readable)
      return combine(weights, block) + _sums(weights, row, len(params["values"])) @ params["values"].astype(
        weights.dtype
      )

    return attend_in_blocks(equation, q, k, v, call)


def _by_distance(q, table, row):
  """The products q_i·a_d for the row d of each pair: `C N T S`."""
  products = jnp.einsum("ckgth,rh->ckgtr", q, table.astype(q.dtype), preferred_element_type=logits_dtype(q))
  products = products.reshape(products.shape[0], -1, *products.shape[3:])
  return jnp.take_along_axis(products, jnp.broadcast_to(row, (*products.shape[:3], row.shape[-1])), axis=-1)


def _sums(weights, row, rows):
  """The sums of weights over the keys at each distance: `C N T R`."""
  return jnp.stack([jnp.sum(jnp.where(row == r, weights, 0.0), axis=-1) for r in range(rows)], axis=-1)
