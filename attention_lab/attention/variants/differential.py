"""Differential attention: the difference of two softmax maps, which cancels what both attend to.

Ye et al. 2024, https://arxiv.org/abs/2410.05258, section 2.1.

    out_i = (1 − λ₀) · RMSNorm(Σ_j (softmax_j(q¹_i·k¹_j / √(H/2)) − λ softmax_j(q²_i·k²_j / √(H/2))) v_j)
    λ = exp(λ_q¹·λ_k¹) − exp(λ_q²·λ_k²) + λ₀,   q = [q¹, q²], k = [k¹, k²]

The vectors λ `H/2` are shared by all heads. Time O(T·S), memory O(S) for each block of queries; decoding state O(S).
Honours every mask; refuses a bias. Nonlinear in v, for its norm. Departure: λ₀ is one field, where the paper lets it
grow with depth.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.engines.chunked import attend_in_blocks, combine, dots
from attention_lab.attention.families import softmax
from attention_lab.attention.families.qk_transforms import rms_norm

NAMES = ("query1", "key1", "query2", "key2")  # of the vectors of λ


@dataclasses.dataclass(frozen=True)
class Differential(Attention):
  tunable: ClassVar[Mapping[str, tuple]] = {"initial": (0.2, 0.5, 0.8)}

  initial: float = 0.8  # λ₀
  scale: float | None = None  # factor of the logits; None = 1/√(H/2)

  def claims(self):
    return Claims(masks=EVERY_MASK, values="nonlinear", head_multiple=2, exactness="other")

  def init(self, key, dims):
    keys = jax.random.split(key, len(NAMES))
    return {name: 0.1 * jax.random.normal(k, (dims.head // 2,)) for name, k in zip(NAMES, keys, strict=True)}

  def attend(self, params, q, k, v, call):
    half = q.shape[-1] // 2
    scale = softmax.scale(self.scale, q[..., :half])
    first, second = (jnp.exp(jnp.sum(params[f"query{i}"] * params[f"key{i}"])) for i in (1, 2))
    factor = first - second + self.initial

    def equation(block):
      halves = (slice(None, half), slice(half, None))
      maps = [
        softmax.weights(dots(block._replace(q=block.q[..., part], k=block.k[..., part])) * scale, block.readable)
        for part in halves
      ]
      out = combine(maps[0] - factor * maps[1], block)
      return rms_norm(out, 1e-5) * (1.0 - self.initial)

    return attend_in_blocks(equation, q, k, v, call)
