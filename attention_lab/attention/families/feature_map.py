"""Linear attention with feature maps: weights are φ(q_i)·φ(k_j) / Σ_j φ(q_i)·φ(k_j), and a variant gives φ."""

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import Attention, Call, Claims, Dims, Params, Unsupported, check_extend, wide
from attention_lab.attention.engines import linear_scan
from attention_lab.attention.engines.linear_scan import Features
from attention_lab.attention.families.segment_mean import valid_keys
from attention_lab.attention.mask import CAUSAL, Mask


@dataclasses.dataclass(frozen=True)
class LinearAttention(Attention, at_least_one=("chunk",)):
  """Normalised linear attention. Time O(T·M·V) for M features; decoding state M × (V + 1) a head, whatever T."""

  chunk: int = 128  # tokens multiplied out at a time when causal; changes the speed, not the result

  @abc.abstractmethod
  def feature_maps(self, params: Params, q: Any, k: Any, v: Array) -> tuple[Array, Array]:
    """φ of the queries `B T N M` and of the keys `B S K M`, not negative."""

  def encode_positions(self, params: Params, features: Float[Array, "B L N M"], positions: Int[Array, "#B L"]) -> Array:
    """Features with the tokens' positions in them; a variant that claims `encodes_positions` overrides it.

    Its decoding state then counts tokens.
    """
    return features

  @abc.abstractmethod
  def num_features(self, dims: Dims) -> int:
    """M, the features of one query or key."""

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid", "segments"})
    return Claims(masks=masks, exactness="other", time_exponent=1, memory_exponent=1, state_exponent=0)

  def attend(self, params: Params, q: Any, k: Any, v: Array, call: Call) -> Float[Array, "B T N V"]:
    mask, S = call.mask, v.shape[1]
    q, k = self.feature_maps(params, q, k, v)
    T = q.shape[1]
    q, k = (
      self.encode_positions(params, q, call.positions.queries(T)),
      self.encode_positions(params, k, call.positions.keys(S)),
    )
    cross = T != S or (call.y is not None and call.y is not call.x)
    if mask.q_segments is not None and cross:
      raise Unsupported(
        f"{type(self).__name__} honours segments in self-attention only: pass an encoder's padding as kv_valid"
      )
    if T != S and mask.causal and not call.positions.known:
      raise Unsupported(
        f"{type(self).__name__} orders tokens by their place in the array: causal with given positions needs T = S"
      )
    q_valid = jnp.ones((1, T), bool) if mask.q_valid is None else mask.q_valid
    features = _masked(Features(q, k, v), q_valid, valid_keys(call, S))
    if mask.q_segments is not None:
      shared = jnp.all(mask.q_segments == mask.k_segments, axis=1)[:, None, None, None]
      features = features._replace(q=jnp.where(shared, features.q, jnp.nan))
    if mask.causal:
      return linear_scan.causal(features, mask, self.chunk)
    if mask.q_segments is not None:
      return linear_scan.within_segments(features, mask, self.chunk)
    return linear_scan.full(features)

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> dict[str, Array]:
    shape = (batch, dims.kv_heads, self.num_features(dims), dims.value + 1)
    state = {"sum": jnp.zeros(shape, wide(dtype))}
    return state | {"length": jnp.zeros((batch,), jnp.int32)} if self.claims().encodes_positions else state

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask: Mask = CAUSAL):
    check_extend(self, mask, lengths)
    q, k = self.feature_maps(params, q, k, v)
    after, index = {}, jnp.arange(v.shape[1], dtype=jnp.int32)[None]
    if "length" in state:
      after["length"] = state["length"] + (v.shape[1] if lengths is None else lengths)
      positions = state["length"][:, None] + index
      q, k = self.encode_positions(params, q, positions), self.encode_positions(params, k, positions)
    features = Features(q, k, v)
    if lengths is not None:
      real = index < lengths[:, None]
      features = _masked(features, real, real)
    out, total = linear_scan.scan(features, state["sum"], self.chunk)
    return after | {"sum": total.astype(state["sum"].dtype)}, linear_scan.normalised(out).astype(v.dtype)


def _masked(features: Features, q_valid: Array, k_valid: Array) -> Features:
  """Features with zeros for queries and keys that are not valid."""
  q = jnp.where(q_valid[:, :, None, None], features.q, 0.0)
  return features._replace(q=q, k=jnp.where(k_valid[:, :, None, None], features.k, 0.0))
