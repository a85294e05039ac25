"""Variational attention: weights are drawn from lognormal distributions around softmax ones, while a key is given.

Fan et al. 2020, Bayesian attention modules, https://arxiv.org/abs/2010.10604, section 3, with lognormal weights.

    out_i = Σ_j w_ij v_j / Σ_j w_ij,   log w_ij = s_ij − σ²/2 + σ ε_ij,   s_ij = q_i·k_j / √H + b_ij,   ε ~ N(0, 1)

Without a key w_ij = exp(s_ij), which is softmax attention. The loss is `weight` times the mean over readable pairs of
the Kullback–Leibler divergence of log w from the prior N(−σ₀²/2, σ₀²). Time O(T·S), memory O(S) for each block of
queries; decoding state O(S), without noise. Honours every mask and a bias; a pair whose logit is below −10⁸ is left out
of the loss as hidden; refuses nothing. On a mesh the loss is the mean of the devices' means. Departure: the prior is
fixed, where the paper may learn it from the keys.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax.numpy as jnp

from attention_lab.attention.base import AttentionOutput
from attention_lab.attention.engines.chunked import add_bias, attend_in_blocks
from attention_lab.attention.families import counter_rng, softmax
from attention_lab.attention.families.scored import ScaledDotProduct

HIDDEN = -1e8  # logits up to which a bias stands for a mask, so that the loss leaves the pair out


@dataclasses.dataclass(frozen=True)
class Variational(ScaledDotProduct):
  tunable: ClassVar[Mapping[str, tuple]] = {"sigma": (0.1, 0.5, 1.0), "weight": (1e-4, 1e-3, 1e-2)}

  sigma: float = 0.5  # σ, of the logarithm of a weight
  prior_sigma: float = 1.0  # σ₀
  weight: float = 1e-3  # of the divergence in the loss

  def __post_init__(self):
    if not (self.sigma > 0 and self.prior_sigma > 0 and self.weight >= 0):
      values = f"sigma={self.sigma}, prior_sigma={self.prior_sigma} and weight={self.weight}"
      raise ValueError(f"{values}: the first two must be positive, and weight not negative")

  def claims(self):
    return dataclasses.replace(super().claims(), exactness="exact", random=True)

  def init(self, key, dims):
    return {"fixed": {"per_head": {"index": jnp.arange(dims.heads, dtype=jnp.int32)}}}

  def attend(self, params, q, k, v, call):
    keys = None if call.key is None else counter_rng.example_keys(call.key, len(q))

    def equation(block):
      scores = self.logits(params, block)
      biased = add_bias(scores, block)
      counted = block.readable & (biased > HIDDEN)
      divergence = jnp.where(counted, self._divergence(jnp.where(counted, biased, 0.0)), 0.0)
      sums = [jnp.sum(array, axis=-1, keepdims=True) for array in (divergence, counted.astype(scores.dtype))]
      logits = add_bias(scores, block, block.readable)
      if keys is not None:
        logits += self.sigma * counter_rng.normal(keys, block.per_head["index"], block).astype(logits.dtype)
      return jnp.concatenate([softmax.average(logits, block), *sums], axis=-1)

    out = attend_in_blocks(equation, q, k, v, call, per_head=params["fixed"]["per_head"])
    divergence, pairs = jnp.sum(out[..., -2]), jnp.sum(out[..., -1])
    return AttentionOutput(out[..., :-2], {"kl": self.weight * divergence / jnp.maximum(pairs, 1.0)})

  def _divergence(self, logits):
    """The divergence of N(s − σ²/2, σ²) from the prior, for each pair."""
    off = logits - (self.sigma**2 - self.prior_sigma**2) / 2.0
    spread = math.log(self.prior_sigma / self.sigma) - 0.5
    return (self.sigma**2 + off * off) / (2.0 * self.prior_sigma**2) + spread
