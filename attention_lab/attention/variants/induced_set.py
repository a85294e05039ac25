"""Induced set attention: tokens are read by a few learned queries, and read those in turn.

Lee et al. 2019, https://arxiv.org/abs/1810.00825, section 3.1 (ISAB); compare the latents of Perceiver
(https://arxiv.org/abs/2103.03206) and agent attention (https://arxiv.org/abs/2312.08874).

    out_i = Σ_m softmax_m(s · q_i·a_m) u_m,   u_m = Σ_j softmax_j(s · a_m·k_j) v_j,   s = 1/√H

The latents a_m are M vectors for each head. Time and memory O(T·M). Honours padding; refuses causal and every other
pattern, for a latent mixes all tokens, and so decoding and a bias. Departure: the latents serve as queries and as keys
without projections or a feed-forward layer between the two steps.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, Call, Claims, Dims
from attention_lab.attention.engines.layout import heads_last
from attention_lab.attention.families import segment_mean, softmax


@dataclasses.dataclass(frozen=True)
class InducedSet(Attention, at_least_one=("latents",)):
  resizable: ClassVar[tuple[str, ...]] = ("latents",)

  latents: int = 32  # M
  scale: float | None = None  # factor of the logits; None = 1/√H

  def claims(self) -> Claims:
    return Claims(masks=frozenset({"q_valid", "kv_valid"}), decode=False, exactness="other", time_exponent=1)

  def init(self, key, dims: Dims):
    return {"per_head": {"latents": jax.random.normal(key, (dims.heads, self.latents, dims.head))}}

  def attend(self, params, q, k, v, call: Call):
    scale = softmax.scale(self.scale, q)
    latents = jnp.swapaxes(params["per_head"]["latents"], 0, 1)[None]
    gather = softmax.attention_weights(latents, k, scale, segment_mean.valid_keys(call, k.shape[1])[:, None])
    u = jnp.einsum("bkgms,bskv->bkgmv", gather, v.astype(gather.dtype))
    spread = softmax.attention_weights(q, latents, scale).reshape(len(q), *u.shape[1:3], q.shape[1], -1)
    return heads_last(spread @ u, call.mask.q_valid)
