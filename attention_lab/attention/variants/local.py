"""Sliding-window softmax attention.

Beltagy et al. 2020, Longformer, https://arxiv.org/abs/2004.05150, section 3.1, without global tokens.

    out_i = Σ_{|i−j| < W} softmax_j(q_i·k_j / √H) v_j

W counts the query's own position: under a causal mask the newest W keys. Time O(T·W), blocks outside the window are
never computed; decoding state is a ring of W keys and values. Honours every mask and an additive bias; refuses nothing
by XLA. A GPU kernel refuses calls that it cannot run, and holds T·S for a window that it does not know as such.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, Dims
from attention_lab.attention.engines import gpu_kernels
from attention_lab.attention.engines.flash import forward
from attention_lab.attention.families import softmax
from attention_lab.attention.mask import Mask


@dataclasses.dataclass(frozen=True)
class Local(Attention):
  window: int = 128  # W, in positions
  scale: float | None = None  # factor of the logits; None = 1/√H
  implementation: gpu_kernels.Implementation = "xla"  # 'cudnn' and 'tokamax': a GPU's kernels, in 16 bits

  def __post_init__(self):
    Mask(window=self.window)
    gpu_kernels.check(self)

  def claims(self) -> Claims:
    return Claims(masks=EVERY_MASK, bias=True, exactness="other", time_exponent=1, state_exponent=0)

  def capacity(self, dims: Dims) -> int:
    return self.window

  def pattern(self, params, i, j):
    return jnp.abs(i - j) < self.window

  def attend(self, params, q, k, v, call: Call):
    call = call._replace(mask=call.mask & Mask(window=self.window))
    if self.implementation != "xla":
      return gpu_kernels.attend(self, q, k, v, call, softmax.scale(self.scale, q))
    return forward.attend(q, k, v, call, softmax.scale(self.scale, q))[0]
