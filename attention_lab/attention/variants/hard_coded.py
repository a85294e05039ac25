"""Hard-coded attention: heads look at the previous, the own and the next position, whatever the tokens are. A control.

You et al. 2020, https://arxiv.org/abs/2005.00742, section 3.

    out_i = Σ_j softmax_j(−(j − i − o_n)² / 2σ²) v_j,   o = −1, 1, 0, −1, … for head n = 0, 1, 2, 3, …

Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours every mask; refuses a bias and
cross-attention.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Claims
from attention_lab.attention.engines.chunked import distance
from attention_lab.attention.families.scored import Scored

OFFSETS = (-1, 1, 0)  # o of the heads, in turn: the previous, the next and the own position


@dataclasses.dataclass(frozen=True)
class HardCoded(Scored):
  projections: ClassVar[str] = "vo"
  tunable: ClassVar[Mapping[str, tuple]] = {"sigma": (0.5, 1.0, 2.0)}

  sigma: float = 1.0  # σ, in positions

  def __post_init__(self):
    if not self.sigma > 0:
      raise ValueError(f"sigma={self.sigma} must be positive")

  def claims(self):
    return Claims(masks=EVERY_MASK, cross=False, supports_gqa=False, encodes_positions=True, exactness="other")

  def init(self, key, dims):
    offsets = [float(OFFSETS[n % len(OFFSETS)]) for n in range(dims.heads)]
    return {"fixed": {"per_head": {"offset": jnp.asarray(offsets)}}}

  def logits(self, params, block):
    offset = jax.lax.stop_gradient(block.per_head["offset"])
    off = distance(block).astype(offset.dtype) + offset[:, :, None, None]
    return -off * off / (2.0 * self.sigma**2)
