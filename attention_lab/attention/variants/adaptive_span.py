"""Adaptive span: each head learns how far it looks.

Sukhbaatar et al. 2019, https://arxiv.org/abs/1905.07799, section 2.2, equations 5 and 6.

    out_i = Σ_j m(|i − j|) exp(l_ij) v_j / Σ_j m(|i − j|) exp(l_ij),   l_ij = q_i·k_j / √H + b_ij
    m(d) = clip((R + z_n − d) / R, 0, 1),   z_n = span_n · max_span within 0 … max_span

The loss `penalty` · mean of z over heads keeps spans short. Time O(T·(max_span + R)), blocks beyond are never
computed; decoding state a ring of max_span + R keys and values. Honours every mask and a bias; refuses nothing.
Departures: distance counts both ways, where the paper is causal; the span is a share of the longest one.
"""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.engines.chunked import distance
from attention_lab.attention.families.scored import ScaledDotProduct


@dataclasses.dataclass(frozen=True)
class AdaptiveSpan(ScaledDotProduct, at_least_one=("max_span", "ramp")):
  tunable: ClassVar[Mapping[str, tuple]] = {"penalty": (5e-7, 2e-6, 8e-6)}

  max_span: int = 1024  # the longest span, in positions
  ramp: int = 32  # R, over how many positions the weights fade behind the span
  initial: float = 0.5  # span at the start, as a share of max_span
  penalty: float = 2e-6  # of a mean span of one position

  def __post_init__(self):
    super().__post_init__()
    if not 0 <= self.initial <= 1 or not self.penalty >= 0:
      raise ValueError(f"initial={self.initial} must lie within 0 … 1, and penalty={self.penalty} must not be negative")

  def claims(self):
    return dataclasses.replace(super().claims(), time_exponent=1, state_exponent=0)

  def init(self, key, dims):
    return {"per_head": {"span": jnp.full(dims.heads, self.initial)}}

  def span(self):
    return self.max_span + self.ramp

  def pattern(self, params, i, j):
    return jnp.abs(i - j) < self.span()

  def readable(self, params, block, positions):
    return self._fade(block) > 0.0

  def logits(self, params, block):
    fade = self._fade(block)
    return super().logits(params, block) + jnp.log(jnp.where(fade > 0.0, fade, 1.0))

  def attend(self, params, q, k, v, call):
    spans = self._spans(params["per_head"]["span"])
    return AttentionOutput(super().attend(params, q, k, v, call), {"span": self.penalty * jnp.mean(spans)})

  def _spans(self, span):
    """The span z of each head, in positions."""
    return self.max_span * jnp.clip(span, 0.0, 1.0)

  def _fade(self, block):
    """The factor m of each pair."""
    spans = self._spans(block.per_head["span"])[:, :, None, None]
    return jnp.clip((self.ramp + spans - jnp.abs(distance(block)).astype(spans.dtype)) / self.ramp, 0.0, 1.0)
