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

  def far(self, S: int, positions: Positions) -> near_far.Far | None:
    """What is read of keys far away, if that is few of them and all alike, so that they can be brought together."""
    return None

  def cut(self, params: Params, T: int, S: int, where: Positions) -> tuple[tiles.BlockMask | None, Array | None]:
    """The tiles of the pattern, and corners of those that are drawn."""
    if jax.tree.leaves(params) or self.span_at(where) is not None or T * S > MAX_EVALUATED_PAIRS:
      return None, None
    side = tiles.fine()
    return tiles.BlockMask(side, *occupied(self, where, (T, S), side)), None

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Float[Array, "B T N V"]:
    where, (T, S) = dataclasses.replace(call.positions, q=None, k=None), (q.shape[1], k.shape[1])
    far = self.far(S, where) if call.positions.known else None
    tiled = far is None and call.positions.known and tiles.fine() ** 2 < T * S
    cut, corners = self.cut(params, T, S, where) if tiled else (None, None)

    def reads(fixed: Params, i: Array, j: Array) -> Any:
      return self.mask_mod(fixed, i, j, where)

    call = call._replace(mask=call.mask & Mask(window=self.span_at(call.positions)))
    pattern, scale = MaskPattern(reads, params, cut, corners), softmax.scale(self.scale, q)
    if far is not None and far.worth(T, S):
      return near_far.attend(q, k, v, call, scale, pattern, far)
    return forward.attend(q, k, v, call, scale, pattern=pattern)[0]


@functools.lru_cache(maxsize=64)
def occupied(
  variant: Patterned, where: Positions, lengths: tuple[int, int], side: int, grain: int = 1
) -> tuple[Bool[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]:
  """The tiles of T × S in which a pair is certain to be read, and those in which all are; `side` rows at a time.

  grain: positions of one block of so many, a divisor of `side`, are all read and all read alike.
  """
  T, S = lengths
  some, every = [], []
  starts = np.arange(0, -(-S // grain), side // grain)
  for t in range(0, T, side):
    with jax.ensure_compile_time_eval():
      i, j = jnp.arange(t, min(t + side, T), grain)[:, None], jnp.arange(0, S, grain)[None]
      rows = np.broadcast_to(np.asarray(variant.static_mask_mod(i, j, where)), (i.size, j.size))
    some.append(np.logical_or.reduceat(rows.any(axis=0), starts))
    every.append(np.logical_and.reduceat(rows.all(axis=0), starts))
  return np.stack(some), np.stack(every)
