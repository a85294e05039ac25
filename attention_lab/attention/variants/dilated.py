"""Dilated sliding window: every d-th position within a window.

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1.

    out_i = Σ_{|i−j| < W·d, d | i−j} softmax_j(q_i·k_j / √H + b_ij) v_j

W keys to each side, the own one counted. Time O(T·W·d), computed as a masked window; decoding state a ring of W·d
keys and values. Honours every mask and a bias; refuses nothing.
"""

import dataclasses

import jax.numpy as jnp

from attention_lab.attention.families.patterned import Patterned


@dataclasses.dataclass(frozen=True)
class Dilated(Patterned, at_least_one=("window", "dilation")):
  window: int = 64  # W, keys to each side
  dilation: int = 2  # d, positions between them

  def claims(self):
    return dataclasses.replace(super().claims(), time_exponent=1, state_exponent=0)

  def span(self):
    return self.window * self.dilation

  def pattern(self, params, i, j):
    return ((i - j) % self.dilation == 0) & (jnp.abs(i - j) < self.span())
