"""BigBird: blocks of a sliding window, global blocks at the start, and random blocks.

Zaheer et al. 2020, https://arxiv.org/abs/2007.14062, section 2.

    out_i = Σ_{j: |I−J| ≤ ⌊w/2⌋ or I < g or J < g or J ∈ R_I} softmax_j(s · q_i·k_j + b_ij) v_j,   I = ⌊i/b⌋, J = ⌊j/b⌋

R, `random` blocks for each block of queries, is drawn once, at init, with replacement and the same for all heads.
Time O(T·(w + g + r)·b) by tiles of whole blocks; where positions are given, or the map has more than 2^28 pairs of
blocks, O(T·S) as a masked map. Decoding state O(S). Honours every mask and a bias; refuses nothing. Departure: R may
hold blocks that the window or the mask decides anyway; beyond max_len the last row of R goes on.
"""

import dataclasses
import functools
import operator

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Dims
from attention_lab.attention.engines.flash import tiles
from attention_lab.attention.families.patterned import MAX_EVALUATED_PAIRS, Patterned, evaluated_tiles
from attention_lab.attention.positions import Positions


@dataclasses.dataclass(frozen=True)
class Bigbird(Patterned):
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

  def claims(self):
    return dataclasses.replace(super().claims(), time_exponent=1)

  def pattern(self, params, i, j):
    rows, j_block = self._drawn(params, i // self.block), j // self.block
    random = (rows[..., r] == j_block for r in range(self.random))
    return functools.reduce(operator.or_, random, self.static_mask_mod(i, j, Positions()))

  def static_mask_mod(self, i, j, positions):
    i, j = i // self.block, j // self.block
    return (abs(i - j) <= self.window // 2) | (i < self.global_blocks) | (j < self.global_blocks)

  def block_mask(self, params, T, S, positions):
    size, count = self.block * max(1, tiles.WINDOW_TILE_MIN // self.block), -(-T // self.block)
    if count * -(-S // self.block) > MAX_EVALUATED_PAIRS:
      return None, None
    partial, full = evaluated_tiles(self, positions, (T, S), size, self.block)
    queries = jnp.arange(self.global_blocks, count, dtype=jnp.int32)[:, None]
    keys = self._drawn(params, queries[:, 0])
    again = jnp.any(jnp.tril(keys[:, :, None] == keys[:, None], -1), axis=2)
    inside = (keys >= 0) & (keys * self.block < S)
    static = jnp.asarray(partial | full)[queries * self.block // size, jnp.where(inside, keys, 0) * self.block // size]
    key_starts = jnp.where(inside & ~again & ~static, keys * self.block, -self.block)
    starts = jnp.stack(jnp.broadcast_arrays(queries * self.block, key_starts), axis=-1).reshape(-1, 2)
    return tiles.BlockMask(size, partial, full, (self.block, len(starts))), starts

  def _drawn(self, params, i):
    """The random blocks of the blocks i of queries."""
    drawn = params["fixed"]["blocks"]
    return drawn[jnp.clip(i, 0, len(drawn) - 1)]
