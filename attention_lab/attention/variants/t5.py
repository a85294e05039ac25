"""T5's relative position bias: one learned number for each head and bucket of distances.

Raffel et al. 2020, https://arxiv.org/abs/1910.10683, section 2.1; buckets as in the authors' code.

    out_i = Σ_j softmax_j(s · q_i·k_j + β_{n, bucket(j − i)} + b_ij) v_j,   s = 1

Half of the buckets are exact distances, the others grow logarithmically up to `max_distance`; bidirectional tables
tell the future from the past. Time O(T·S), memory O(T) by tiles; decoding state O(S). Honours every
mask and a bias; refuses nothing.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.engines.flash import forward


@dataclasses.dataclass(frozen=True)
class T5(Attention):
  buckets: int = 32
  max_distance: int = 128  # tokens; all that is farther shares the last bucket
  bidirectional: bool = True  # tells the future from the past; decoders take False
  scale: float = 1.0  # factor of the inner products, which T5 leaves as they are

  def __post_init__(self):
    exact = self.buckets // (4 if self.bidirectional else 2)
    if exact < 1 or self.max_distance <= exact:
      least = 4 if self.bidirectional else 2
      raise ValueError(
        f"t5 needs buckets ≥ {least} and max_distance above {exact}, not {self.buckets} and {self.max_distance}"
      )

  def claims(self):
    return Claims(masks=EVERY_MASK, bias=True, exactness="other", encodes_positions=True)

  def init(self, key, dims):
    return {"per_head": {"bias": 0.02 * jax.random.normal(key, (dims.heads, self.buckets))}}

  def attend(self, params, q, k, v, call):
    return forward.attend(q, k, v, call, self.scale, score_mod=self._score, per_head=params["per_head"])[0]

  def _score(self, logits, pairs):
    table = pairs.per_head["bias"][0].astype(logits.dtype)
    return logits + jnp.moveaxis(table[:, self.bucket(pairs.j - pairs.i)[:, 0]], 0, 1)

  def bucket(self, offset):
    """The bucket of each key at `offset` = j − i."""
    side = self.buckets // 2 if self.bidirectional else self.buckets
    away = jnp.abs(offset) if self.bidirectional else jnp.maximum(-offset, 0)
    near = jnp.asarray(self._table(side))[jnp.minimum(away, self.max_distance)]
    return jnp.where(offset > 0, side, 0) + near if self.bidirectional else near

  def _table(self, side):
    """Buckets of the distances 0 … max_distance on one side, in double precision."""
    exact = side // 2
    ratio = (side - exact) / math.log(self.max_distance / exact)
    far = [exact + int(math.log(away / exact) * ratio + 1e-9) for away in range(exact, self.max_distance + 1)]
    return np.minimum([*range(exact), *far], side - 1).astype(np.int32)
