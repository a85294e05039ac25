"""Transformer-XL: softmax attention with sinusoids of the distance, projected for each head, and two learned queries.

Dai et al. 2019, https://arxiv.org/abs/1901.02860, section 3.3.

    out_i = Σ_j softmax_j(s · ((q_i + u_n)·k_j + (q_i + w_n)·W_n r_{i−j}) + b_ij) v_j,   s = 1/√H
    r_d = [sin(d f_0), …, cos(d f_0), …] of width D,   f_c = 10000^(−2c/D)

The angle of a difference is split between query and key, so that the second product costs D more channels and needs
no table of distances. With `memory` M a query reads |i − j| < M, as the authors' code does with `same_length`. Time
O(T·S·(H + D)), or O(T·M·(H + D)); memory O(S) for each block of queries; decoding state O(S), or a ring of M. Honours
every mask and a bias; refuses nothing.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.families import qk_transforms, softmax
from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class TransformerXl(ScaledDotProduct):
  undecayed: ClassVar[frozenset[str]] = frozenset({"per_head/content", "per_head/position"})

  memory: int = 0  # M, in positions, the own one counted; 0 = without bound

  def __post_init__(self):
    if self.memory < 0:
      raise ValueError(f"memory={self.memory} must be at least 1 position, or 0 for no bound")

  def claims(self):
    claims = dataclasses.replace(super().claims(), encodes_positions=True)
    return (
      dataclasses.replace(claims, time_exponent=1, state_exponent=0)
      if self.memory
      else dataclasses.replace(claims, exactness="exact")
    )

  def init(self, key, dims):
    if dims.model % 2:
      raise ValueError(f"TransformerXl pairs sines with cosines: the model's width must be even, not {dims.model}")
    content, position, kernel = jax.random.split(key, 3)
    queries = {
      name: 0.02 * jax.random.normal(k, (dims.heads, dims.head))
      for name, k in zip(("content", "position"), (content, position), strict=True)
    }
    kernel = dims.model**-0.5 * jax.random.normal(kernel, (dims.heads, dims.model, dims.head))
    return {"per_head": queries | {"kernel": kernel}}

  def span(self):
    return self.memory or None

  def pattern(self, params, i, j):
    return jnp.abs(i - j) < self.memory if self.memory else True

  def logits(self, params, block):
    dtype = logits_dtype(block.q, block.k)
    shape = block.q.shape
    q = block.q.astype(dtype).reshape(shape[0], -1, *shape[3:])
    content, position, kernel = (block.per_head[name].astype(dtype) for name in ("content", "position", "kernel"))
    contents = super().logits(
      params, block._replace(q=(q + content[:, :, None]).reshape(shape), k=block.k.astype(dtype))
    )
    sines, cosines = jnp.split(jnp.einsum("cnth,cndh->cntd", q + position[:, :, None], kernel), 2, axis=-1)
    at_i, at_j = (qk_transforms.angles(positions, kernel.shape[2] // 2, q) for positions in (block.i, block.j))
    sin, cos = jnp.sin(at_i)[:, None], jnp.cos(at_i)[:, None]
    turned = jnp.concatenate([cosines * sin - sines * cos, sines * sin + cosines * cos], axis=-1)
    codes = jnp.concatenate([jnp.sin(at_j), jnp.cos(at_j)], axis=-1)
    return contents + jnp.einsum("cntd,csd->cnts", turned, codes) * softmax.scale(self.scale, block.q)
