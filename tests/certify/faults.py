"""Planted faults: variants that look right and are not, each with one fault."""

import dataclasses

import jax
import jax.numpy as jnp

from attention_lab.attention import cache
from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.attention.variants.alibi import Alibi
from attention_lab.attention.variants.linear import Linear
from attention_lab.attention.variants.local import Local
from attention_lab.attention.variants.softmax import Softmax

frozen = dataclasses.dataclass(frozen=True)


@frozen
class Dense(Attention):
  """Softmax in four lines, for faults to be planted in."""

  def claims(self):
    return Claims(masks=EVERY_MASK)

  def attend(self, params, q, k, v, call):
    k, v = (jnp.repeat(array, q.shape[2] // array.shape[2], axis=2) for array in (k, v))
    readable = call.mask.dense(q.shape[1], k.shape[1], call.positions)
    return jnp.einsum("bnts,bsnv->btnv", self.weights(jnp.einsum("btnh,bsnh->bnts", q, k), readable), v)

  def weights(self, logits, readable):
    largest = jnp.max(jnp.where(readable, logits, -1e30), axis=-1, keepdims=True)
    numerators = jnp.where(readable, jnp.exp(jnp.where(readable, logits - largest, 0.0)), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-1, keepdims=True), 1e-30)


@frozen
class StridedLocal(Local):
  """Reads j ≡ i mod W: what a reshape to (W, blocks) in the wrong order gives."""

  def attend(self, params, q, k, v, call):
    i, j = call.positions.queries(q.shape[1]), call.positions.keys(k.shape[1])
    strided = (i[:, None, :, None] - j[:, None, None, :]) % self.window == 0
    return Softmax().attend(params, q, k, v, call._replace(mask=call.mask & Mask(explicit=strided)))


@frozen
class WideLocal(Local):
  """A window one position too wide on the left."""

  def attend(self, params, q, k, v, call):
    return Softmax().attend(
      params, q, k, v, call._replace(mask=call.mask & Mask(window=(self.window + 1, self.window)))
    )


@frozen
class WideMask(Dense):
  """The caller's window taken as |i − j| <= W."""

  def attend(self, params, q, k, v, call):
    window = call.mask.window and tuple(side + 1 for side in call.mask.window)
    return super().attend(params, q, k, v, call._replace(mask=dataclasses.replace(call.mask, window=window)))


@frozen
class DeafLinear(Linear):
  """Takes the padding mask and drops it."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, call._replace(mask=dataclasses.replace(call.mask, kv_valid=None)))


@frozen
class Endless(Linear):
  """Carries its state from one segment into the next."""

  def attend(self, params, q, k, v, call):
    mask = dataclasses.replace(call.mask, q_segments=None, k_segments=None)
    return super().attend(params, q, k, v, call._replace(mask=mask))


@frozen
class Restarted(Alibi):
  """Takes the index in the piece for the position in the sequence."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    piece = cache.append(state, k, v, lengths, ring=False)
    i = jnp.broadcast_to(jnp.arange(q.shape[1], dtype=jnp.int32), q.shape[:2])
    readable = mask.dense(q.shape[1], piece.k.shape[1], piece.positions)
    call = Call(Mask(explicit=readable), Positions(i, jnp.where(piece.positions.k < 0, -1, piece.positions.k)))
    return piece.state, self.attend(params, q, piece.k, piece.v, call)


@frozen
class WideNormaliser(Dense):
  """Divides by the sum over all keys, the future too."""

  def weights(self, logits, readable):
    return jnp.where(readable, jax.nn.softmax(logits), 0.0)


@frozen
class TopK(Dense):
  """Chooses the largest logits of the whole sequence, then masks the future: its Jacobian is 0 there."""

  def weights(self, logits, readable):
    chosen = logits >= jax.lax.stop_gradient(jnp.sort(logits, axis=-1)[..., -3:-2])
    return super().weights(logits, readable & chosen)


@frozen
class BatchMaximum(Dense):
  """Shifts logits by the largest of the whole batch: the same, until it underflows."""

  def weights(self, logits, readable):
    numerators = jnp.where(readable, jnp.exp(logits - jnp.max(logits)), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-1, keepdims=True), 1e-30)


@frozen
class Interleaved(Dense):
  """Query head n reads key head n mod K."""

  def attend(self, params, q, k, v, call):
    k, v = (jnp.concatenate([array] * (q.shape[2] // array.shape[2]), axis=2) for array in (k, v))
    return super().attend(params, q, k, v, call)


@frozen
class Transposed(Dense):
  """Normalises over the queries."""

  def weights(self, logits, readable):
    numerators = jnp.where(readable, jnp.exp(logits), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-2, keepdims=True), 1e-30)


@frozen
class Undefined(Dense):
  """Divides 0 by 0 where nothing is readable."""

  def weights(self, logits, readable):
    return jax.nn.softmax(jnp.where(readable, logits, -jnp.inf))


@frozen
class Stopped(Softmax):
  """The right output, and no gradient for the keys."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, jax.lax.stop_gradient(k), v, call)


@frozen
class Deaf(Dense):
  """Has a hyper-parameter and does not use it."""

  temperature: float = 1.0


@frozen
class Silent(Dense):
  """Accepts a bias that it does not claim."""

  def with_aux(self, params, q, k, v, call):
    return super().with_aux(params, q, k, v, call._replace(bias=None))


@frozen
class Cheap(Dense):
  """Quadratic, and says that it is linear."""

  def claims(self):
    return Claims(masks=EVERY_MASK, time=1)


@frozen
class Shared(Dense):
  """Counts its tokens once for the whole batch."""

  def init_state(self, batch, dims, dtype):
    return super().init_state(batch, dims, dtype) | {"length": jnp.zeros((1,), jnp.int32)}


@frozen
class Squared(Dense):
  """Not linear in the values, and says that it is."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v * jnp.abs(v), call)
