"""Softmax attention with a pattern that is a function of positions (a mask_mod), run by the flash engine in tiles."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import Call, Params
from attention_lab.attention.engines.flash import forward, near_far, tiles
from attention_lab.attention.engines.flash.block_mask import MaskPattern
from attention_lab.attention.families import softmax
from attention_lab.attention.families.scored import ScaledDotProduct
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions

MAX_EVALUATED_PAIRS = (
  2**28
)  # pairs at which a pattern is evaluated while tracing, to find the tiles that it leaves empty


@dataclasses.dataclass(frozen=True)
class Patterned(ScaledDotProduct):
  """A pattern run by tiles, forward and backward, without the tiles that it empties. Honours every mask and a bias.

  The tiles are found while tracing, for positions 0, 1, 2, …, from a pattern without arrays and of at most
  `MAX_EVALUATED_PAIRS` pairs; of any other pattern all tiles within its window are computed.
  """

  def mask_mod(
    self, params: Params, i: Int[Array, "..."], j: Int[Array, "..."], positions: Positions
  ) -> Bool[Array, "..."] | bool:
    """The pattern in a call at these positions: whether the query at i may read the key at j."""
    return self.pattern(params, i, j)

  def static_mask_mod(
    self, i: Int[Array, "..."], j: Int[Array, "..."], positions: Positions
  ) -> Bool[Array, "..."] | bool:
    """The pairs of the pattern that do not depend on parameters, so that they are known while tracing."""
    return self.mask_mod({}, i, j, positions)

  def far_keys(self, S: int, positions: Positions) -> near_far.FarKeys | None:
    """The far keys of a pattern in which they are few and the same for many queries; None = no such pattern."""
    return None

  def block_mask(
    self, params: Params, T: int, S: int, positions: Positions
  ) -> tuple[tiles.BlockMask | None, Array | None]:
    """The tiles of the pattern, and the starts of those that are known at run time; None where they are not known."""
    if jax.tree.leaves(params) or self.span_at(positions) is not None or T * S > MAX_EVALUATED_PAIRS:
      return None, None
    size = tiles.sparse_tile()
    return tiles.BlockMask(size, *evaluated_tiles(self, positions, (T, S), size)), None

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Float[Array, "B T N V"]:
    T, S, grid_positions = q.shape[1], k.shape[1], dataclasses.replace(call.positions, q=None, k=None)
    far = self.far_keys(S, grid_positions) if call.positions.known else None
    sparse = far is None and call.positions.known and tiles.sparse_tile() ** 2 < T * S
    block_mask, starts = self.block_mask(params, T, S, grid_positions) if sparse else (None, None)

    def mask_mod(params: Params, i: Array, j: Array) -> Any:
      return self.mask_mod(params, i, j, grid_positions)

    call = call._replace(mask=call.mask & Mask(window=self.span_at(call.positions)))
    pattern, scale = MaskPattern(mask_mod, params, block_mask, starts), softmax.scale(self.scale, q)
    if far is not None and far.saves_work(T, S):
      return near_far.attend(q, k, v, call, scale, pattern, far)
    return forward.attend(q, k, v, call, scale, pattern=pattern)[0]


@functools.lru_cache(maxsize=64)
def evaluated_tiles(
  variant: Patterned, positions: Positions, lengths: tuple[int, int], size: int, grain: int = 1
) -> tuple[Bool[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]:
  """(partial, full) tiles of `BlockMask` for the pattern's `static_mask_mod`, evaluated at all pairs of T × S.

  size: queries and keys of a tile, evaluated a row of tiles at a time. grain: size of blocks, a divisor of `size`,
  whose positions the pattern treats alike, so that one of each is evaluated.
  """
  T, S = lengths
  partial, full = [], []
  starts = np.arange(0, -(-S // grain), size // grain)
  for t in range(0, T, size):
    with jax.ensure_compile_time_eval():
      i, j = jnp.arange(t, min(t + size, T), grain)[:, None], jnp.arange(0, S, grain)[None]
      rows = np.broadcast_to(np.asarray(variant.static_mask_mod(i, j, positions)), (i.size, j.size))
    full.append(np.logical_and.reduceat(rows.all(axis=0), starts))
    partial.append(np.logical_or.reduceat(rows.any(axis=0), starts) & ~full[-1])
  return np.stack(partial), np.stack(full)
