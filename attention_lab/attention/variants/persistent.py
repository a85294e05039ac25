"""Persistent memory: each head also reads learned keys and values that belong to no token.

Sukhbaatar et al. 2019, https://arxiv.org/abs/1907.01470, section 4.1, equations 8 and 9.

    out_i = Σ_j w_ij v_j + Σ_m w_im b_m,   w_i = softmax over j and m of [q_i·k_j / √H + b_ij, q_i·a_m / √H]

Keys a `M H` and values b `M V` for each head, always readable: but a query that may read no token gets zeros. Time
O(T·(S + M)), memory O(S + M) for each block of queries; decoding state O(S). Honours every mask and a bias, which acts
on tokens alone; refuses nothing. It is affine in v: equal values do not pass unchanged. Departure: the feed-forward
layers that the paper removes are the model's affair.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks, combine, dots
from attention_lab.attention.families import softmax


@dataclasses.dataclass(frozen=True)
class Persistent(Attention, at_least_one=("memories",)):
  resizable: ClassVar[tuple[str, ...]] = ("memories",)

  memories: int = 16  # M
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, values="affine", exactness="other")

  def init(self, key, dims: Dims):
    keys, values = jax.random.split(key)
    return {
      "per_head": {
        "keys": jax.random.normal(keys, (dims.heads, self.memories, dims.head)),
        "values": jax.random.normal(values, (dims.heads, self.memories, dims.value)) * self.memories**-0.5,
      }
    }

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      S, tokens = block.k.shape[2], add_bias(dots(block) * scale, block)
      C, N, T = tokens.shape[:3]
      keys, values = (block.per_head[name].astype(tokens.dtype) for name in ("keys", "values"))
      memories = jnp.einsum("cnth,cnmh->cntm", block.q.reshape(C, N, T, -1).astype(tokens.dtype), keys) * scale
      tokens = jnp.where(block.readable, tokens, -jnp.inf)
      some = jnp.max(tokens, axis=-1, keepdims=True) > -jnp.inf
      logits = jnp.concatenate([tokens, jnp.where(some, memories, -jnp.inf)], axis=-1)
      weights = softmax.weights(logits, logits > -jnp.inf)
      return combine(weights[..., :S], block) + weights[..., S:] @ values

    return attend_in_blocks(equation, q, k, v, call, per_head=params["per_head"])
