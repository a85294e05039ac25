"""Softmax attention (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, section 3.2.1).

    out_i = Σ_j exp(l_ij) v_j / (Σ_j exp(l_ij) + e),   l_ij = c(τ · s · q_i·k_j) + b_ij,   s = 1/√H

The soft cap c(z) = cap·tanh(z/cap) is that of Gemma 2 (https://arxiv.org/abs/2408.00118, section 2); the sink e =
exp(`sink`_n), learned, lets a head read nothing (gpt-oss, https://arxiv.org/abs/2508.10925); the temperature τ =
exp(`temperature`_n) is learned for each head. Without them c(z) = z, e = 0 and τ = 1. Time O(T·S), memory O(T)
by tiles; decoding state O(S). Honours every mask and an additive bias; refuses nothing by XLA. A GPU kernel refuses
`soft_cap`, `sink` and calls that it cannot run, and holds T·S for a mask that is not causal alone.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines import gpu_kernels
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families import softmax


@dataclasses.dataclass(frozen=True)
class Softmax(Attention):
  scale: float | None = None  # factor of the logits; None = 1/√H
  soft_cap: float | None = None  # bound of the scaled logits; None = none
  sink: bool = False  # a learned logit for each head that joins the normaliser
  temperature: bool = False  # a learned factor of the logits for each head
  implementation: gpu_kernels.Implementation = "xla"  # 'cudnn' and 'tokamax': a GPU's kernels, in 16 bits

  def __post_init__(self):
    if self.soft_cap is not None and not self.soft_cap > 0:
      raise ValueError(f"soft_cap={self.soft_cap} must be positive, or None for no bound")
    gpu_kernels.check(self, soft_cap=self.soft_cap, sink=self.sink)

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other" if self.sink else "exact")

  def init(self, key, dims: Dims):
    learned = {"sink": self.sink, "temperature": self.temperature}
    per_head = {name: jnp.zeros(dims.heads) for name, wanted in learned.items() if wanted}
    return {"per_head": per_head} if per_head else {}

  def attend(self, params, q, k, v, call: Call):
    per_head, score_mod = params.get("per_head", {}), None
    if self.temperature:
      q = q * jnp.exp(per_head["temperature"])[None, None, :, None].astype(q.dtype)
    if self.implementation != "xla":
      return gpu_kernels.attend(self, q, k, v, call, softmax.scale(self.scale, q))
    if self.soft_cap is not None:
      score_mod = functools.partial(_capped, self.soft_cap)
    out, lse = forward.attend(q, k, v, call, softmax.scale(self.scale, q), score_mod=score_mod)
    if not self.sink:
      return out
    share = jax.nn.sigmoid(lse - per_head["sink"].astype(lse.dtype)[None, :, None])
    return out * jnp.swapaxes(share, 1, 2)[..., None].astype(out.dtype)


def _capped(cap, logits, _):
  return softmax.soft_cap(logits, cap)
