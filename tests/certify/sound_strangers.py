"""Sound attention classes in the idioms of other people's code: the battery must not fail one claim of theirs."""

import jax
import jax.numpy as jnp
from faults import frozen

from attention_lab.attention.base import EVERY_MASK, Attention, Claims, refuse_positions

DENSE = Claims(masks=EVERY_MASK, memory_exponent=2)
SELF = Claims(cross=False, decode=False, supports_gqa=False, memory_exponent=2)


def readable_of(q, k, call):
  """`B N T S` or what broadcasts to it: the pairs that the call lets be read."""
  return call.mask.dense(q.shape[1], k.shape[1], call.positions)


def repeated(q, *arrays):
  """Key and value heads repeated in blocks, so that each query head has one."""
  return [jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in arrays]


@frozen
class Dense(Attention):
  """What most of these have in common: every mask by a dense matrix of T·S."""

  def claims(self):
    return DENSE


@frozen
class Float32Logits(Dense):
  """Logits and softmax in float32 whatever the inputs are, as everybody's."""

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    logits = jnp.einsum("btnh,bsnh->bnts", q.astype(jnp.float32), k.astype(jnp.float32)) * q.shape[3] ** -0.5
    readable = readable_of(q, k, call)
    weights = jax.nn.softmax(jnp.where(readable, logits, -1e30), axis=-1)
    weights = jnp.where(readable.any(axis=-1, keepdims=True), weights, 0.0).astype(v.dtype)
    return jnp.einsum("bnts,bsnv->btnv", weights, v)


@frozen
class NegativeBillion(Dense):
  """−1e9 at what is hidden, and zeros for a row that reads nothing."""

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32) / jnp.sqrt(q.shape[3])
    readable = readable_of(q, k, call)
    weights = jax.nn.softmax(jnp.where(readable, logits, -1e9)) * readable.any(axis=-1, keepdims=True)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class AdditiveMask(Dense):
  """A bias of (1 − mask) · −1e9 beside the caller's bias."""

  def claims(self):
    return Claims(masks=EVERY_MASK, bias=True, memory_exponent=2)

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    readable = readable_of(q, k, call).astype(jnp.float32)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * q.shape[3] ** -0.5
    logits = logits if call.bias is None else logits + call.bias
    weights = jax.nn.softmax(logits + (1.0 - readable) * -1e9) * readable
    return jnp.einsum("bnts,bsnv->btnv", weights, v.astype(jnp.float32)).astype(v.dtype)


@frozen
class LowestNumber(Dense):
  """The dtype's lowest number at what is hidden, and matrix products of transposed layouts."""

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    queries, keys, values = (array.transpose(0, 2, 1, 3) for array in (q, k, v))
    logits = jnp.matmul(queries * q.shape[3] ** -0.5, keys.swapaxes(-1, -2))
    readable = readable_of(q, k, call)
    logits = jnp.where(readable, logits, jnp.finfo(logits.dtype).min).astype(jnp.float32)
    weights = jnp.where(readable, jax.nn.softmax(logits), 0.0).astype(v.dtype)
    return jnp.matmul(weights, values).transpose(0, 2, 1, 3)


@frozen
class MinusInfinity(Dense):
  """−inf at what is hidden, and a softmax by hand that is guarded twice."""

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    readable = readable_of(q, k, call)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[3] ** -0.5
    logits = jnp.where(readable, logits.astype(jnp.float32), -jnp.inf)
    largest = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    numerators = jnp.exp(logits - jnp.where(jnp.isfinite(largest), largest, 0.0))
    total = numerators.sum(axis=-1, keepdims=True)
    weights = numerators / jnp.where(total == 0.0, 1.0, total)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class BlockedHeads(Dense):
  """Grouped heads as an axis of their own, and a softmax told where it may look."""

  def attend(self, params, q, k, v, call):
    B, T, N, H = q.shape
    K = k.shape[2]
    logits = jnp.einsum("btkgh,bskh->bkgts", q.reshape(B, T, K, N // K, H), k, preferred_element_type=jnp.float32)
    readable = jnp.broadcast_to(readable_of(q, k, call), (B, N, T, k.shape[1])).reshape(logits.shape)
    weights = jax.nn.softmax(logits * H**-0.5, where=readable)
    weights = jnp.where(readable, weights, 0.0)
    return jnp.einsum("bkgts,bskv->btkgv", weights, v.astype(jnp.float32)).reshape(B, T, N, -1).astype(v.dtype)


@frozen
class Temperature(Dense):
  """A scale of its own, and a learned factor for each head."""

  temperature: float = 0.5

  def init(self, key, dims):
    return {"per_head": {"gain": jnp.ones(dims.heads)}}

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    gain = params["per_head"]["gain"] / self.temperature
    logits = jnp.einsum("btnh,bsnh->bnts", q.astype(jnp.float32), k.astype(jnp.float32)) * gain[None, :, None, None]
    readable = readable_of(q, k, call)
    weights = jax.nn.softmax(jnp.where(readable, logits, -1e30)) * readable
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class FixedScale(Attention):
  """Self-attention whose scale is the constant 1/8, and which honours a causal mask alone."""

  def claims(self):
    return Claims(masks=frozenset({"causal"}), cross=False, decode=False, supports_gqa=False, memory_exponent=2)

  def attend(self, params, q, k, v, call):
    refuse_positions(self, call)
    logits = jnp.einsum("bqhd,bkhd->bhqk", q, k) / 8.0
    if call.mask.causal:
      logits = jnp.where(jnp.tril(jnp.ones(logits.shape[2:], bool))[None, None], logits, -1e9)
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(logits), v)


@frozen
class MappedHeads(Attention):
  """One head of one example, mapped over heads and then over examples."""

  def claims(self):
    return SELF

  def attend(self, params, q, k, v, call):
    def head(q, k, v):
      return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]).astype(q.dtype)) @ v

    return jax.vmap(jax.vmap(head, in_axes=1, out_axes=1))(q, k, v)


@frozen
class HeadByHead(Attention):
  """A Python loop over heads, stacked."""

  def claims(self):
    return SELF

  def attend(self, params, q, k, v, call):
    outs = []
    for n in range(q.shape[2]):
      logits = jax.lax.batch_matmul(q[:, :, n], k[:, :, n].transpose(0, 2, 1)) * q.shape[3] ** -0.5
      outs.append(jax.lax.batch_matmul(jax.nn.softmax(logits, axis=-1), v[:, :, n]))
    return jnp.stack(outs, axis=2)


@frozen
class JaxAttention(Dense):
  """`jax.nn.dot_product_attention`, with zeros for a row that reads nothing."""

  def claims(self):
    return Claims(masks=EVERY_MASK, bias=True, memory_exponent=2)

  def attend(self, params, q, k, v, call):
    readable = jnp.broadcast_to(readable_of(q, k, call), (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    scale, width = q.shape[3] ** -0.5, max(q.shape[3], v.shape[3])
    padded = jnp.pad(v, ((0, 0), (0, 0), (0, 0), (0, width - v.shape[3])))
    q, k = (jnp.pad(array, ((0, 0), (0, 0), (0, 0), (0, width - array.shape[3]))) for array in (q, k))
    out = jax.nn.dot_product_attention(q, k, padded, call.bias, readable, scale=scale)[..., : v.shape[3]]
    return jnp.where(jnp.moveaxis(readable.any(axis=-1), 1, 2)[..., None], out, 0.0)


@frozen
class Dropout(Dense):
  """Dropout on the weights by bernoulli, with one key for the whole batch."""

  rate: float = 0.1

  def claims(self):
    return Claims(masks=EVERY_MASK, random=True, memory_exponent=2)

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    readable = readable_of(q, k, call)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[3] ** -0.5
    weights = jax.nn.softmax(jnp.where(readable, logits.astype(jnp.float32), -1e30)) * readable
    if call.key is not None and self.rate:
      keep = jax.random.bernoulli(call.key, 1.0 - self.rate, weights.shape)
      weights = jnp.where(keep, weights / (1.0 - self.rate), 0.0)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class Window(Dense):
  """A local window as an explicit mask of positions."""

  radius: int = 2

  def claims(self):
    return Claims(masks=EVERY_MASK, exactness="other", memory_exponent=2)

  def pattern(self, params, i, j):
    return abs(i - j) <= self.radius

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    i, j = call.positions.queries(q.shape[1]), call.positions.keys(k.shape[1])
    near = self.pattern(params, i[:, :, None], j[:, None, :])[:, None]
    readable = near & readable_of(q, k, call)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) / jnp.sqrt(jnp.float32(q.shape[3]))
    weights = jax.nn.softmax(jnp.where(readable, logits, -1e30), axis=-1)
    weights = jnp.where(readable.any(axis=-1, keepdims=True), weights, 0)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class Alibi(Dense):
  """A penalty on distance, with slopes 2^(−8n/N)."""

  def claims(self):
    return Claims(masks=EVERY_MASK, encodes_positions=True, exactness="exact", memory_exponent=2)

  def init(self, key, dims):
    return {"fixed": {"per_head": {"slopes": 2.0 ** (-8.0 * jnp.arange(1, dims.heads + 1) / dims.heads)}}}

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    i, j = call.positions.queries(q.shape[1]), call.positions.keys(k.shape[1])
    distance = jnp.abs(i[:, None, :, None] - j[:, None, None, :]).astype(jnp.float32)
    slopes = params["fixed"]["per_head"]["slopes"][None, :, None, None]
    logits = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * q.shape[3] ** -0.5 - slopes * distance
    readable = readable_of(q, k, call)
    weights = jax.nn.softmax(jnp.where(readable, logits, -1e30)) * readable
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)
