"""Faults of outside classes that nine tokens, two heads a group or ascending numbers do not show."""

from typing import Any

import jax
import jax.numpy as jnp
from faults import PLAIN, Bite, Dense, frozen, masked

from attention_lab.attention import cache
from attention_lab.attention.base import EVERY_MASK, Call, Claims
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.variants.linear import Linear
from attention_lab.attention.variants.local import Local


def without(call, lost):
  """The call with the pairs `T S` hidden that are `lost`."""
  return call._replace(mask=call.mask & Mask(explicit=~lost[None, None]))


@frozen
class LastOfChunk(Dense):
  """Loses the last key of each chunk of 64 for the queries of later chunks."""

  def attend(self, params, q, k, v, call):
    t, s = jnp.arange(q.shape[1])[:, None], jnp.arange(k.shape[1])[None]
    return super().attend(params, q, k, v, without(call, (s % 64 == 63) & (t // 64 > s // 64)))


@frozen
class FirstOfLongChunk(Dense):
  """Loses the first key of each chunk of 128 but the first, in sequences of more than 200 tokens."""

  def attend(self, params, q, k, v, call):
    s = jnp.broadcast_to(jnp.arange(k.shape[1]), (q.shape[1], k.shape[1]))
    return super().attend(params, q, k, v, without(call, (s % 128 == 0) & (s > 0) & (k.shape[1] > 200)))


@frozen
class Remainder(Dense):
  """Loses the keys that are left over when a long sequence is cut into chunks of 32."""

  def attend(self, params, q, k, v, call):
    S = k.shape[1]
    s = jnp.broadcast_to(jnp.arange(S), (q.shape[1], S))
    return super().attend(params, q, k, v, without(call, (s >= S // 32 * 32) & (S > 32)))


@frozen
class Forgetting(Linear):
  """A state that starts again at token 128."""

  def attend(self, params, q, k, v, call):
    first = super().attend(params, q, k, v, call)
    if k.shape[1] <= 128 or not call.mask.causal or call.mask.names() - {"causal"}:
      return first
    rest = super().attend(params, q[:, 128:], k[:, 128:], v[:, 128:], call)
    return jnp.concatenate([first[:, :128], rest], axis=1)


@frozen
class LostCarry(Linear):
  """Chunks of 64 and more do not hand their state on."""

  def attend(self, params, q, k, v, call):
    if self.chunk < 64 or k.shape[1] <= 64:
      return super().attend(params, q, k, v, call)
    runs = [slice(start, start + 64) for start in range(0, k.shape[1], 64)]
    return jnp.concatenate([Linear().attend(params, q[:, r], k[:, r], v[:, r], call) for r in runs], axis=1)


@frozen
class ShortPadding(Dense):
  """Reads the padding mask of the first 128 keys alone."""

  def attend(self, params, q, k, v, call):
    valid = call.mask.kv_valid
    valid = valid if valid is None else valid | (jnp.arange(k.shape[1])[None] >= 128)
    return super().attend(params, q, k, v, masked(call, kv_valid=valid))


@frozen
class Grouped(Dense):
  """Query head n reads another key head than n // (N // K): n // K, or n mod K unless there are two heads a group."""

  by: str = "n // K"

  def attend(self, params, q, k, v, call):
    N, K = q.shape[2], k.shape[2]
    wrong = jnp.minimum(jnp.arange(N) // K, K - 1) if self.by == "n // K" else jnp.arange(N) % K
    head = wrong if N > K and (self.by == "n // K" or N != 2 * K) else jnp.arange(N) // (N // K)
    return super().attend(params, q, k[:, :, head], v[:, :, head], call)


@frozen
class Ascending(Dense):
  """Takes the numbers of segments to ascend: under a causal mask, those of keys that are not smaller."""

  def attend(self, params, q, k, v, call):
    mask = call.mask
    if mask.q_segments is None or not mask.causal:
      return super().attend(params, q, k, v, call)
    later = mask.k_segments[:, None, None, :] >= mask.q_segments[:, None, :, None]
    call = masked(call, q_segments=None, k_segments=None)
    return super().attend(params, q, k, v, call._replace(mask=call.mask & Mask(explicit=later)))


@frozen
class MissedBorder(Dense):
  """Counts the runs of segments in chunks of 64, and misses a border between two chunks."""

  def attend(self, params, q, k, v, call):
    ids = call.mask.k_segments
    if ids is None or q.shape[1] != k.shape[1]:
      return super().attend(params, q, k, v, call)
    border = (ids != jnp.roll(ids, 1, axis=1)) & (jnp.arange(k.shape[1])[None] % 64 != 0)
    runs = jnp.cumsum(border, axis=1)
    return super().attend(params, q, k, v, masked(call, q_segments=runs, k_segments=runs))


@frozen
class ZeroIsPadding(Dense):
  """Hides the tokens of a segment with the number 0 where it is the last."""

  def attend(self, params, q, k, v, call):
    ids = call.mask.k_segments
    if ids is not None:
      padding = (ids == 0) & (ids[:, -1:] == 0)
      call = call._replace(mask=call.mask & Mask(kv_valid=~padding))
    return super().attend(params, q, k, v, call)


@frozen
class SecondWrap(Local):
  """A ring of slots that counts its tokens wrongly after it has gone round twice."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    state, out = super().extend(params, state, q, k, v, x=x, lengths=lengths, mask=mask)
    length = state["length"]
    return state | {"length": jnp.where(length > 2 * self.window, length - 1, length)}, out


@frozen
class RoundedPositions(Local):
  """Keeps the positions of its keys in the dtype of the cache."""

  def init_state(self, batch, dims, dtype):
    state = super().init_state(batch, dims, dtype)
    return state | {"positions": state["positions"].astype(dtype)}

  def extend(self, params: Any, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    dtype, whole = state["positions"].dtype, state | {"positions": state["positions"].astype(jnp.int32)}
    state, out = super().extend(params, whole, q, k, v, x=x, lengths=lengths, mask=mask)
    return state | {"positions": state["positions"].astype(dtype)}, out


@frozen
class RoundedLength(Dense):
  """Counts its tokens in the dtype of the cache, in which 256 + 1 is 256."""

  def init_state(self, batch, dims, dtype):
    state = super().init_state(batch, dims, dtype)
    return state | {"length": state["length"].astype(dtype)}

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    dtype = state["length"].dtype
    appended = cache.append(state | {"length": state["length"].astype(jnp.int32)}, k, v, lengths, ring=False)
    out = self.attend(params, q, appended.k, appended.v, Call(mask, appended.positions)).astype(v.dtype)
    return appended.state | {"length": appended.state["length"].astype(dtype)}, out


@frozen
class LowSums(Dense):
  """Adds up blocks of 64 weights, and what they weigh, in the dtype of the values."""

  weighted: bool = True  # also the weighted values; else the normaliser alone

  def attend(self, params, q, k, v, call):
    k, v = (jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in (k, v))
    readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32) * q.shape[3] ** -0.5
    largest = jnp.max(jnp.where(readable, logits, -1e30), axis=-1, keepdims=True)
    weights = jnp.where(readable, jnp.exp(jnp.where(readable, logits - largest, 0.0)), 0.0)
    total, mean = jnp.zeros(weights.shape[:3], v.dtype), jnp.zeros((*q.shape[:3], v.shape[3]))
    mean = mean.astype(v.dtype if self.weighted else jnp.float32)
    for start in range(0, k.shape[1], 64):
      block = weights[..., start : start + 64]
      total = total + block.sum(axis=-1).astype(total.dtype)
      mean = mean + jnp.einsum("bnts,bsnv->btnv", block, v[:, start : start + 64]).astype(mean.dtype)
    return mean / jnp.maximum(jnp.moveaxis(total, 1, 2)[..., None], 1e-30)


@frozen
class Biased(Dense):
  """Softmax with a bias, of whose gradient only a share is passed on."""

  share: float = 0.0

  def claims(self):
    return Claims(masks=EVERY_MASK, bias=True)

  def attend(self, params, q, k, v, call):
    if call.bias is None:
      return super().attend(params, q, k, v, call)
    bias = self.share * call.bias + jax.lax.stop_gradient((1.0 - self.share) * call.bias)
    k, v = (jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in (k, v))
    readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
    weights = self.weights(jnp.einsum("btnh,bsnh->bnts", q, k) + bias, readable)
    return jnp.einsum("bnts,bsnv->btnv", weights, v)


@jax.custom_vjp
def _unheard_last(k):
  return k


def _without_last(_, cotangent):
  lost = (jnp.arange(cotangent.shape[1]) % 64 == 63)[None, :, None, None]
  return (jnp.where(lost, 0.0, cotangent),)


_unheard_last.defvjp(lambda k: (k, None), _without_last)


@frozen
class LostBackward(Dense):
  """A backward pass by hand that forgets the last key of each chunk of 64."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, _unheard_last(k), v, call)


@frozen
class DroppedTogether(Dense):
  """Dropout of weights whose bits are drawn once for an axis of `B N T S`."""

  axis: int = 1
  dropout: float = 0.5

  def claims(self):
    return Claims(masks=EVERY_MASK, random=True)

  def attend(self, params, q, k, v, call):
    if call.key is None:
      return super().attend(params, q, k, v, call)
    k, v = (jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in (k, v))
    readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
    weights = self.weights(jnp.einsum("btnh,bsnh->bnts", q, k), readable)
    sizes = [1 if axis == self.axis else size for axis, size in enumerate(weights.shape)]
    stays = jax.random.bernoulli(call.key, 1.0 - self.dropout, sizes)
    return jnp.einsum("bnts,bsnv->btnv", weights * stays / (1.0 - self.dropout), v)


PACKED = "long packing equals separate"
BITES = (
  Bite(LastOfChunk(), "tokens in any order", "300 tokens in another order", "honours causal"),
  Bite(LastOfChunk(), "equals its oracle at length", "under causal", "honours causal", PLAIN),
  Bite(FirstOfLongChunk(), "long prefixes stand alone", "the first 129 of 300 tokens", "honours causal", quick=False),
  Bite(Remainder(), "long prefixes stand alone", "the first 65 of 300 tokens", "honours causal"),
  Bite(Forgetting(chunk=4), "extend at length", "pieces of 75", "extend in any split"),
  Bite(LostCarry(chunk=4), "chunks leave the result", "chunk=64 at 300 tokens", "every hyper-parameter acts"),
  Bite(ShortPadding(), "long padding equals truncation", "64 tokens padded to 300", "padding equals truncation"),
  Bite(Grouped(), "groups of heads are blocks", "3 key heads .* for 6", "heads are independent", quick=False),
  Bite(Grouped(by="n % K"), "groups of heads are blocks", "2 key heads .* for 8", "heads are independent", quick=False),
  Bite(Ascending(), PACKED, "in one order against", "honours segments"),
  Bite(Ascending(), "honours all constraints together", "hides", "honours causal"),
  Bite(MissedBorder(), PACKED, "in one order against", "packed equals separate"),
  Bite(ZeroIsPadding(), PACKED, "in one order against", "packed equals separate"),
  Bite(SecondWrap(window=8), "extend at length", "pieces of 75", "extend in any split"),
  Bite(RoundedPositions(window=3), "extend with a 16-bit state", "a state in bfloat16", "extend at length"),
  Bite(RoundedLength(), "extend with a 16-bit state", "a state in bfloat16", "extend at length"),
  Bite(LowSums(), "bfloat16 over 1,000 keys", "over 1000 keys", "bfloat16 is near float32"),
  Bite(LowSums(weighted=False), "bfloat16 over 1,000 keys", "over 1000 keys", "bfloat16 is near float32"),
  Bite(Biased(), "gradient of a bias equals differences", "along a bias of shape .* is 0,", "honours bias"),
  Bite(Biased(share=0.9), "gradient of a bias equals differences", "along a bias of shape", "honours bias"),
  Bite(LostBackward(), "gradient at length equals differences", "along k is", "equals its oracle", PLAIN, quick=False),
  Bite(DroppedTogether(axis=0), "randomness is independent", "noise of examples 0 and 1", "the same call twice"),
  Bite(DroppedTogether(axis=1), "randomness is independent", "noise of heads 0 and 1", "the same call twice"),
  Bite(DroppedTogether(axis=2), "randomness is independent", "noise of queries 0 and 1", "the same call twice"),
  Bite(DroppedTogether(axis=3), "randomness is independent", "noise of keys 0 and 1", "the same call twice"),
)
