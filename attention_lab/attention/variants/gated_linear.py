"""Gated linear attention (Yang et al. 2023, https://arxiv.org/abs/2312.06635, sections 4.1 to 4.4).

    S_t = diag(a_t) S_{t−1} + k_t v_tᵀ,   a_t = sigmoid(x_t W + b)^(1/τ),   out_t = S_tᵀ q_t / √H

W (`kernel`, D K H) and b (`bias`, K H) give each channel of each key head its own decay; τ is `temperature`. Time
O(T·(H·V + (H + V)·chunk)) and memory O(T), in chunks with blocks inside them; decoding state H × V a key head. Honours
causal (and needs it), padding and segments: a hidden key is skipped. Refuses windows, prefixes, explicit masks, biases
and cross-attention. Departures: W has full rank where the paper factors it through 16 dimensions; the head's norm
and output gate are parts of `published(gated_linear)`.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims
from attention_lab.attention.families.gated_scan import GatedScan, Gates


@dataclasses.dataclass(frozen=True)
class GatedLinear(GatedScan):
  published: ClassVar[str] = "nope>self>norm>gate"
  tunable: ClassVar[Mapping[str, tuple]] = {"temperature": (4.0, 16.0, 64.0)}

  temperature: float = 16.0  # τ: the larger, the closer to 1 the decays

  def __post_init__(self):
    super().__post_init__()
    if not self.temperature > 0:
      raise ValueError(f"temperature={self.temperature} must be above 0")

  def init(self, key, dims: Dims):
    kernel = jax.random.normal(key, (dims.model, dims.kv_heads, dims.head)) * dims.model**-0.5
    return {"kernel": kernel, "bias": jnp.zeros((dims.kv_heads, dims.head))}

  def gates(self, params, k, x):
    return Gates(k, log_decay=jax.nn.log_sigmoid(self.project(params, x, k)) / self.temperature)
