"""BigBird: blocks of a sliding window, global blocks at the start, and random blocks.

Zaheer et al. 2020, https://arxiv.org/abs/2007.14062, section 2.

    out_i = Σ_{j: |I−J| ≤ ⌊w/2⌋ or I < g or J < g or J ∈ R_I} softmax_j(s · q_i·k_j + b_ij) v_j,   I = ⌊i/b⌋, J = ⌊j/b⌋

R, `random` blocks for each block of queries, is drawn once, at init, with replacement and the same for all heads.
Time O(T·S), computed as a masked map; decoding state O(S). Honours every mask and a bias; refuses nothing. Departure:
R may hold blocks that the window or the mask decides anyway; beyond max_len the last row of R goes on.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims
from attention_lab.attention.primitives.scored import Scaled


@dataclasses.dataclass(frozen=True)
class Bigbird(Scaled):
  block: int = 64  # b, in positions
  window: int = 3  # w, in blocks, the own one in the middle
  global_blocks: int = 1  # g, at the start
  random: int = 3  # blocks drawn for each block of queries

  def __post_init__(self):
    if self.window < 1 or self.window % 2 == 0:
      raise ValueError(f"window={self.window} must be odd: the own block and as many on either side")
    if self.block < 1 or self.global_blocks < 0 or self.random < 0:
      raise ValueError(
        f"block={self.block} must be at least 1, global_blocks={self.global_blocks} and random={self.random} at least 0"
      )

  def init(self, key, dims: Dims):
    count = -(-dims.max_len // self.block)
    return {"fixed": {"blocks": jax.random.randint(key, (count, self.random), 0, count, jnp.int32)}}

  def pattern(self, params, i, j):
    i, j, drawn = i // self.block, j // self.block, params["fixed"]["blocks"]
    rows = drawn[jnp.clip(i, 0, len(drawn) - 1)]
    near = (jnp.abs(i - j) <= self.window // 2) | (i < self.global_blocks) | (j < self.global_blocks)
    return functools.reduce(operator.or_, (rows[..., r] == j for r in range(self.random)), near)
