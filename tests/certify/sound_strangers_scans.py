"""More sound classes of other people's: scans, feature maps, recurrences and what is no softmax."""

import jax
import jax.numpy as jnp
from faults import frozen
from sound_strangers import DENSE, Dense, readable_of, repeated

from attention_lab.attention.base import EVERY_MASK, Attention, Claims, check_extend, refuse_positions
from attention_lab.attention.mask import CAUSAL


@frozen
class OnlineSoftmax(Dense):
  """Blocks of keys one after the other, with a running maximum and sum: flash attention by `lax.scan`."""

  block: int = 4

  def claims(self):
    return DENSE

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    S, readable = k.shape[1], readable_of(q, k, call)
    readable = jnp.broadcast_to(readable, (q.shape[0], q.shape[2], q.shape[1], S))
    room = -S % self.block
    k, v = (jnp.pad(array, ((0, 0), (0, room), (0, 0), (0, 0))) for array in (k, v))
    readable = jnp.pad(readable, ((0, 0), (0, 0), (0, 0), (0, room)))
    count = k.shape[1] // self.block
    blocks = [jnp.moveaxis(a.reshape(a.shape[0], count, self.block, *a.shape[2:]), 1, 0) for a in (k, v)]
    blocks.append(jnp.moveaxis(readable.reshape(*readable.shape[:3], count, self.block), 3, 0))

    def step(carry, block):
      out, largest, total = carry
      k, v, readable = block
      logits = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * q.shape[3] ** -0.5
      logits = jnp.where(readable, logits, -1e30)
      new = jnp.maximum(largest, logits.max(axis=-1))
      numerators = jnp.where(readable, jnp.exp(logits - new[..., None]), 0.0)
      shrink = jnp.exp(largest - new)
      out = out * shrink[..., None] + jnp.einsum("bnts,bsnv->bntv", numerators, v.astype(jnp.float32))
      return (out, new, total * shrink + numerators.sum(axis=-1)), None

    rows = (q.shape[0], q.shape[2], q.shape[1])
    start = jnp.zeros((*rows, v.shape[3])), jnp.full(rows, -1e30), jnp.zeros(rows)
    (out, _, total), _ = jax.lax.scan(step, start, tuple(blocks))
    return jnp.moveaxis(out / jnp.where(total == 0.0, 1.0, total)[..., None], 1, 2).astype(v.dtype)


@frozen
class QueryBlocks(Attention):
  """A block of queries at a time by `lax.map`, in linear memory."""

  def claims(self):
    return Claims(masks=frozenset({"causal", "kv_valid"}))

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    i, j = call.positions.queries(q.shape[1]), call.positions.keys(k.shape[1])
    valid = (j >= 0) if call.mask.kv_valid is None else (j >= 0) & call.mask.kv_valid

    def row(query):
      q, i = query
      readable = valid & (j <= i[:, None]) if call.mask.causal else valid
      logits = jnp.einsum("bnh,bsnh->bns", q, k).astype(jnp.float32) * q.shape[2] ** -0.5
      weights = jax.nn.softmax(jnp.where(readable[:, None], logits, -1e30)) * readable[:, None]
      return jnp.einsum("bns,bsnv->bnv", weights.astype(v.dtype), v)

    out = jax.lax.map(jax.checkpoint(row), (jnp.moveaxis(q, 1, 0), jnp.broadcast_to(i, q.shape[:2]).T))
    return jnp.moveaxis(out, 0, 1)


@frozen
class FeatureMap(Attention):
  """Linear attention without a mask: φ(q)·(Σ φ(k) vᵀ), with φ = elu + 1."""

  def claims(self):
    return Claims(masks=frozenset({"kv_valid"}), decode=False, supports_gqa=False, exactness="other", time_exponent=1)

  def attend(self, params, q, k, v, call):
    refuse_positions(self, call)
    q, k = jax.nn.elu(q.astype(jnp.float32)) + 1, jax.nn.elu(k.astype(jnp.float32)) + 1
    if call.mask.kv_valid is not None:
      k = k * call.mask.kv_valid[:, :, None, None]
    state = jnp.einsum("bsnh,bsnv->bnhv", k, v.astype(jnp.float32))
    total = jnp.einsum("btnh,bnh->btn", q, k.sum(axis=1))
    return jnp.einsum("btnh,bnhv->btnv", q, state) / (total[..., None] + 1e-6)


@frozen
class CumulativeSum(Attention):
  """Causal linear attention as a cumulative sum of outer products."""

  def claims(self):
    return Claims(
      masks=frozenset({"causal"}),
      requires_causal=True,
      cross=False,
      decode=False,
      supports_gqa=False,
      exactness="other",
      time_exponent=1,
    )

  def attend(self, params, q, k, v, call):
    refuse_positions(self, call)
    q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
    state = jnp.cumsum(jnp.einsum("bsnh,bsnv->bsnhv", k, v), axis=1)
    total = jnp.einsum("btnh,btnh->btn", q, jnp.cumsum(k, axis=1))
    return jnp.einsum("btnh,btnhv->btnv", q, state) / (total[..., None] + 1e-6)


@frozen
class Recurrent(Attention):
  """A decaying state that a scan carries, and an `extend` of its own."""

  decay: float = 0.9

  def claims(self):
    return Claims(
      masks=frozenset({"causal"}),
      requires_causal=True,
      cross=False,
      exactness="other",
      time_exponent=1,
      state_exponent=0,
      supports_gqa=False,
      encodes_positions=True,
    )

  def init_state(self, batch, dims, dtype):
    return jnp.zeros((batch, dims.heads, dims.head, dims.value), jnp.float32)

  def scan(self, state, q, k, v, lengths):
    real = jnp.arange(q.shape[1])[:, None] < lengths[None]

    def step(state, token):
      q, k, v, real = token
      new = self.decay * state + jnp.einsum("bnh,bnv->bnhv", k, v)
      state = jnp.where(real[:, None, None, None], new, state)
      return state, jnp.einsum("bnh,bnhv->bnv", q, state)

    tokens = [jnp.moveaxis(array.astype(jnp.float32), 1, 0) for array in (q, k, v)]
    state, out = jax.lax.scan(step, state, (*tokens, real))
    return state, jnp.moveaxis(out, 0, 1)

  def attend(self, params, q, k, v, call):
    refuse_positions(self, call)
    state = jnp.zeros((q.shape[0], q.shape[2], q.shape[3], v.shape[3]), jnp.float32)
    return self.scan(state, q, k, v, jnp.full(q.shape[0], q.shape[1]))[1]

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    check_extend(self, mask, lengths)
    state, out = self.scan(state, q, k, v, jnp.full(q.shape[0], q.shape[1]) if lengths is None else lengths)
    return state, out.astype(v.dtype)


@frozen
class Sigmoid(Dense):
  """Sigmoid attention with the bias −log S."""

  def claims(self):
    return Claims(masks=EVERY_MASK, exactness="other", memory_exponent=2)

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    readable = jnp.broadcast_to(readable_of(q, k, call), (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    count = jnp.maximum(readable.sum(axis=-1, keepdims=True), 1).astype(jnp.float32)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32) * q.shape[3] ** -0.5
    weights = jnp.where(readable, jax.nn.sigmoid(logits - jnp.log(count)), 0.0)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class SquaredRelu(Dense):
  """Squared ReLU of the logits, divided by the number of keys that are read."""

  def claims(self):
    return Claims(masks=EVERY_MASK, exactness="other", memory_exponent=2)

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    readable = jnp.broadcast_to(readable_of(q, k, call), (q.shape[0], q.shape[2], q.shape[1], k.shape[1]))
    weights = jnp.square(jax.nn.relu(jnp.einsum("btnh,bsnh->bnts", q, k).astype(jnp.float32))) * readable
    weights = weights / jnp.maximum(readable.sum(axis=-1, keepdims=True), 1)
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class Cosine(Dense):
  """Softmax of ten times the cosine of query and key."""

  def claims(self):
    return Claims(masks=EVERY_MASK, exactness="other", memory_exponent=2)

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    q, k = (array.astype(jnp.float32) for array in (q, k))
    q, k = (array * jax.lax.rsqrt(jnp.sum(array**2, axis=-1, keepdims=True) + 1e-6) for array in (q, k))
    readable = readable_of(q, k, call)
    logits = jnp.where(readable, 10.0 * jnp.einsum("btnh,bsnh->bnts", q, k), -1e30)
    weights = jax.nn.softmax(logits) * readable
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)


@frozen
class SoftCap(Dense):
  """Logits that a tanh keeps below 30, with a scale of 1/√H."""

  def attend(self, params, q, k, v, call):
    k, v = repeated(q, k, v)
    logits = jnp.einsum("btnh,bsnh->bnts", q, k, preferred_element_type=jnp.float32) * q.shape[3] ** -0.5
    readable = readable_of(q, k, call)
    weights = jax.nn.softmax(jnp.where(readable, 30.0 * jnp.tanh(logits / 30.0), -1e30)) * readable
    return jnp.einsum("bnts,bsnv->btnv", weights.astype(v.dtype), v)
