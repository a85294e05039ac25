"""Variants without a projection of keys: queries stand for them, or values for both where there are no queries."""

import dataclasses
from typing import Any, ClassVar

from attention_lab.attention import cache
from attention_lab.attention.base import Call, Claims, Dims, Params, State
from attention_lab.attention.families.scored import Scaled


@dataclasses.dataclass(frozen=True)
class Tied(Scaled):
  """Scored by inner products with keys := queries. Refuses cross-attention and grouped heads.

  Decoding caches the queries as keys.
  """

  projections: ClassVar[str] = "qvo"

  def claims(self) -> Claims:
    return dataclasses.replace(super().claims(), cross=False, supports_gqa=False)

  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Any:
    """Softmax over the queries as keys; k is None, or the cached queries in decoding."""
    if "q" not in self.projections:
      q, k = (v if q is None else q), v
    return super().attend(params, q, q if k is None else k, v, call)

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> State:
    width = dims.head if "q" in self.projections else 0
    return cache.empty(batch, self.capacity(dims), dims.kv_heads, (width, dims.value), dtype)

  def extend(self, params: Params, state: State, q: Any, k: Any, v: Any, **demands: Any) -> tuple[State, Any]:
    return super().extend(params, state, v if q is None else q, q, v, **demands)
