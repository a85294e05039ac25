"""Long convolution: every head has one filter as long as the sequence, and nothing depends on the tokens.

Fu et al. 2023, https://arxiv.org/abs/2302.06646, section 3.

    out_i = Σ_j h_{i−j} v_j,   h = sign(f)·max(|f| − squash, 0)

f are max_len numbers for the past and, used without a causal mask, as many for the future; beyond them h is 0. Time
O(T·log²T) by Fourier transforms of halves of the past, so that no rounding error of a later token reaches an earlier
one; memory O(T). Decoding reads a cache of values, O(S) a token. Honours causal and padding; refuses other patterns, a
bias, grouped heads, cross-attention and given positions. Departure: one filter for each head, where the paper has one
for each channel.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Call, Claims, Dims, logits_dtype, refuse_positions
from attention_lab.attention.engines.chunked import distance
from attention_lab.attention.families.scored import Scored

DIRECT = 64  # the most places of a block whose products are summed without a transform


@dataclasses.dataclass(frozen=True)
class LongConvolution(Scored):
  projections: ClassVar[str] = "vo"
  tunable: ClassVar[Mapping[str, tuple]] = {"squash": (0.001, 0.003, 0.005)}

  squash: float = 0.001  # what the filter's absolute values lose, so that small ones vanish

  def __post_init__(self):
    if self.squash < 0:
      raise ValueError(f"squash={self.squash} must not be negative")

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid"})
    return Claims(
      masks=masks, cross=False, supports_gqa=False, encodes_positions=True, exactness="other", time_exponent=1
    )

  def init(self, key, dims: Dims):
    shape = (dims.heads, dims.max_len)
    keys = zip(("filter", "backward"), jax.random.split(key), strict=True)
    return {"per_head": {name: jax.random.normal(k, shape) * dims.max_len**-0.5 for name, k in keys}}

  def with_aux(self, params, q, k, v, call: Call):
    refuse_positions(self, call)
    return super().with_aux(params, q, k, v, call)

  def attend(self, params, q, k, v, call: Call):
    if not call.positions.known:
      return super().attend(params, q, k, v, call)
    values = v if call.mask.kv_valid is None else jnp.where(call.mask.kv_valid[:, :, None, None], v, 0.0)
    values = jnp.moveaxis(values, 1, -1).astype(logits_dtype(v))
    past, future = (self._filter(params["per_head"][name].astype(values.dtype)) for name in ("filter", "backward"))
    out = _convolved(values, past)
    if not call.mask.causal:
      out += jnp.flip(_convolved(jnp.flip(values, -1), future.at[:, 0].set(0.0)), -1)
    out = jnp.moveaxis(out, -1, 1)
    return out if call.mask.q_valid is None else jnp.where(call.mask.q_valid[:, :, None, None], out, 0.0)

  def logits(self, params, block):
    """The filter at each distance; for decoding, which is causal."""
    kernel, away = self._filter(block.per_head["filter"]), distance(block)
    inside = jnp.clip(away, 0, kernel.shape[-1] - 1)
    taken = jnp.take_along_axis(kernel[:, :, None], jnp.broadcast_to(inside, (len(kernel), 1, *inside.shape[2:])), -1)
    return jnp.where((away >= 0) & (away < kernel.shape[-1]), taken, 0.0)

  def weights(self, logits, readable):
    return jnp.where(readable, logits, 0.0)

  def _filter(self, taps):
    """The filter whose absolute values have lost `squash`."""
    return jnp.sign(taps) * jnp.maximum(jnp.abs(taps) - self.squash, 0.0)


def _convolved(values, kernel):
  """Σ_{s ≤ t} kernel_{t−s} values_s, from `B N V T` and `N L`.

  Products within short blocks; between two neighbouring blocks, of twice the length at each level, a transform.
  """
  T = values.shape[-1]
  levels = max(0, math.ceil(math.log2(T / DIRECT)))
  size = -(-T // 2**levels)
  full = size * 2**levels
  kernel = jnp.pad(kernel[:, :full], ((0, 0), (0, max(0, full - kernel.shape[1]))))
  values = jnp.pad(values, ((0, 0), (0, 0), (0, 0), (0, full - T)))
  away = jnp.arange(size)[:, None] - jnp.arange(size)[None]
  near = jnp.where(away >= 0, kernel[:, jnp.maximum(away, 0)], 0.0)
  out = jnp.einsum("nts,bnvcs->bnvct", near, values.reshape(*values.shape[:3], -1, size)).reshape(values.shape)
  for level in range(levels):
    length = size * 2**level
    first = values.reshape(*values.shape[:3], -1, 2, length)[..., 0, :]
    response = jnp.fft.rfft(kernel[:, : 2 * length])[:, None, None]
    second = jnp.fft.irfft(jnp.fft.rfft(first, 2 * length) * response[None], 2 * length)[..., length:]
    out += jnp.stack([jnp.zeros_like(second), second], axis=-2).reshape(out.shape)
  return out[..., :T]
