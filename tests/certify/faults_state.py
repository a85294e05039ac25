"""Faults of segments, states and decoding."""

import dataclasses
from typing import Any

import jax.numpy as jnp
from faults import Bite, Dense, frozen, masked

from attention_lab.attention import cache
from attention_lab.attention.base import EVERY_MASK, Call, Claims
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions
from attention_lab.attention.variants.alibi import Alibi
from attention_lab.attention.variants.linear import Linear
from attention_lab.attention.variants.performer import Performer


@frozen
class Endless(Linear):
  """Carries its state from one segment into the next."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, q_segments=None, k_segments=None))


@frozen
class Restarted(Alibi):
  """Takes the index in the piece for the position in the sequence."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    appended = cache.append(state, k, v, lengths, ring=False)
    i = jnp.broadcast_to(jnp.arange(q.shape[1], dtype=jnp.int32), q.shape[:2])
    readable = mask.dense(q.shape[1], appended.k.shape[1], appended.positions)
    call = Call(Mask(explicit=readable), Positions(i, jnp.where(appended.positions.k < 0, -1, appended.positions.k)))
    return appended.state, self.attend(params, q, appended.k, appended.v, call)


@frozen
class Rowless(Dense):
  """Takes every row of a piece for whole."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    return super().extend(params, state, q, k, v, x=x, mask=mask)


@frozen
class Unwindowed(Dense):
  """Decodes without the caller's window."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    return super().extend(params, state, q, k, v, x=x, lengths=lengths, mask=dataclasses.replace(mask, window=None))


@frozen
class Forgetful(Dense):
  """Overwrites its oldest keys when the cache is full, without a word."""

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    appended = cache.append(state, k, v, lengths, ring=True)
    return appended.state, self.attend(params, q, appended.k, appended.v, Call(mask, appended.positions))


@frozen
class Shared(Dense):
  """Counts its tokens once for the whole batch."""

  def init_state(self, batch, dims, dtype):
    return super().init_state(batch, dims, dtype) | {"length": jnp.zeros((1,), jnp.int32)}


@frozen
class Stated(Dense):
  """Keeps every key, and says that its state does not grow."""

  def claims(self):
    return Claims(masks=EVERY_MASK, state_exponent=0)


@frozen
class Spilling(Performer):
  """Feeds right padding to its state."""

  def extend(self, params: Any, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    return super().extend(params, state, q, k, v, x=x, mask=mask)


BITES = (
  Bite(Endless(chunk=4), "honours segments", "which 'segments' hides", "honours kv_valid"),
  Bite(Endless(chunk=4), "packed equals separate", "packed from", "padding equals truncation"),
  Bite(Restarted(), "extend in any split", "piece from", "honours causal"),
  Bite(Rowless(), "extend of ragged rows", r"row \d of lengths", "extend in any split"),
  Bite(Spilling(features=8, chunk=4), "extend of ragged rows", r"row \d of lengths", "extend in any split"),
  Bite(Unwindowed(), "extend under window and prefix", "split .*, piece from", "extend of ragged rows"),
  Bite(Forgetful(), "state never overflows silently", "13th token of at most 9 gets an answer", "extend in any split"),
  Bite(Shared(), "state has the batch first", r"\(1,\) for 2 examples", "extend in any split"),
  Bite(Stated(), "state in T", r"T\^1.00, not T\^0", "time in T"),
)
