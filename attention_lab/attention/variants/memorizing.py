"""Memorizing transformer: a local window, and the best matches in all that lies before it, mixed by a gate.

Wu et al. 2022, https://arxiv.org/abs/2203.08913, section 3.

    out_i = g Σ_{j ∈ M_i} softmax_j(l_ij) v_j + (1 − g) Σ_{i − j < W} softmax_j(l_ij) v_j,   g = σ(b_n)

l_ij = q_i·k_j / √H + bias; M_i are the keys with the `neighbours` largest l_ij among those with i − j ≥ W, ties kept.
Where M_i is empty the window is read alone. Time O(T·S), memory O(S) for each block of queries; decoding state O(S).
Causal by construction; honours every mask and a bias. Departures: the memory is the sequence's own past, searched
exactly, and gradients flow into it; keys are not normalised.
"""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks, combine, distance, dots
from attention_lab.attention.families import softmax
from attention_lab.attention.families.sparse_support import top_k_mask


@dataclasses.dataclass(frozen=True)
class Memorizing(Attention, at_least_one=("window", "neighbours")):
  window: int = 512  # W, in positions, the own one counted
  neighbours: int = 32  # keys that each query reads beyond the window
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, requires_causal=True, bias=True, exactness="other")

  def init(self, key, dims: Dims):
    return {"per_head": {"gate": jnp.zeros(dims.heads)}}

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)

    def equation(block):
      near = distance(block) < self.window
      parts = (block.readable & ~near, block.readable & near)
      far_logits, near_logits = (add_bias(dots(block) * scale, block, part) for part in parts)
      memory = top_k_mask(far_logits, parts[0], self.neighbours)
      gate = jax.nn.sigmoid(block.per_head["gate"].astype(far_logits.dtype))[:, :, None, None]
      gate = jnp.where(jnp.any(memory, axis=-1, keepdims=True), gate, 0.0)
      recalled, local = softmax.weights(far_logits, memory), softmax.weights(near_logits, parts[1])
      return combine(gate * recalled + (1.0 - gate) * local, block)

    return attend_in_blocks(equation, q, k, v, call, per_head=params["per_head"], floats_per_logit=2)
