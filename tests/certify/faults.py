"""Planted faults: variants that look right and are not, each with one fault; here in masks, maps and heads."""

import dataclasses
import types
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import EVERY_MASK, Attention, Claims
from attention_lab.attention.variants.local import Local
from attention_lab.attention.variants.softmax import Softmax
from attention_lab.certify import battery, oracle

frozen = dataclasses.dataclass(frozen=True)


class Bite(NamedTuple):
  """A fault, a claim under which the battery must find it, and what the counter-example must say."""

  variant: Attention
  claim: str
  says: str  # found in the detail, shape or position of the finding
  holds: str = ""  # a claim that the fault leaves true
  case: Any = None
  quick: bool = True


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


def plain(variant, params, example) -> np.ndarray:
  """The oracle of `Dense`."""
  return oracle.softmax_mean(example, lambda n, t, s: oracle.dot(example, n, t, s))


def case_of(function, **attributes) -> types.ModuleType:
  """A case, as files in `certify/cases` are, out of an oracle."""
  case = types.ModuleType(function.__name__)
  vars(case).update(attributes, oracle=function)
  return case


PLAIN = case_of(plain)


def masked(call, **changes):
  """The call with other constraints."""
  return call._replace(mask=dataclasses.replace(call.mask, **changes))


@frozen
class WideLocal(Local):
  """A window one position too wide on the left."""

  def attend(self, params, q, k, v, call):
    return Softmax().attend(params, q, k, v, masked(call, window=(self.window + 1, self.window)))


@frozen
class NarrowLocal(Local):
  """A window one position too narrow."""

  def attend(self, params, q, k, v, call):
    return Softmax().attend(params, q, k, v, masked(call, window=self.window - 1))


@frozen
class ShiftedMask(Dense):
  """The caller's window taken one position too wide, or too narrow."""

  by: int = 1

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, window=tuple(side + self.by for side in call.mask.window)))


@frozen
class LongPrefix(Dense):
  """Takes the last position of a prefix for its length."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, prefix=call.mask.prefix + 1))


@frozen
class FirstHead(Dense):
  """An explicit mask of many heads read for the first of them."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v, masked(call, explicit=call.mask.explicit[:, :1]))


@frozen
class OneAtATime(Dense):
  """Drops the padding mask where segments are given."""

  def attend(self, params, q, k, v, call):
    padding = call.mask.kv_valid if call.mask.q_segments is None else None
    return super().attend(params, q, k, v, masked(call, kv_valid=padding))


@frozen
class WideNormaliser(Dense):
  """Divides by the sum over all keys, the future too: weights set to 0 after the softmax."""

  def weights(self, logits, readable):
    return jnp.where(readable, jax.nn.softmax(logits), 0.0)


@frozen
class TopK(Dense):
  """Chooses the largest logits of the whole sequence, then masks the future: its Jacobian is 0 there."""

  def weights(self, logits, readable):
    chosen = logits >= jax.lax.stop_gradient(jnp.sort(logits, axis=-1)[..., -3:-2])
    return super().weights(logits, readable & chosen)


@frozen
class Interleaved(Dense):
  """Query head n reads key head n mod K."""

  def attend(self, params, q, k, v, call):
    k, v = (jnp.concatenate([array] * (q.shape[2] // array.shape[2]), axis=2) for array in (k, v))
    return super().attend(params, q, k, v, call)


@frozen
class CentredQueries(Dense):
  """Takes the mean of all queries off each."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q - q.mean(axis=1, keepdims=True), k, v, call)


@frozen
class OneMap(Dense):
  """The mean of all heads' logits for every head."""

  def weights(self, logits, readable):
    return super().weights(jnp.broadcast_to(logits.mean(axis=1, keepdims=True), logits.shape), readable)


@frozen
class Transposed(Dense):
  """Normalises over the queries."""

  def weights(self, logits, readable):
    numerators = jnp.where(readable, jnp.exp(logits), 0.0)
    return numerators / jnp.maximum(numerators.sum(axis=-2, keepdims=True), 1e-30)


@frozen
class Squared(Dense):
  """Not linear in the values, and says that it is."""

  def attend(self, params, q, k, v, call):
    return super().attend(params, q, k, v * jnp.abs(v), call)


@frozen
class Ungrouped(Dense):
  """An einsum that takes as many key heads as query heads."""

  def attend(self, params, q, k, v, call):
    logits = jnp.einsum("btnh,bsnh->bnts", q, k)
    return jnp.einsum(
      "bnts,bsnv->btnv", self.weights(logits, call.mask.dense(q.shape[1], k.shape[1], call.positions)), v
    )


@frozen
class Silent(Dense):
  """Accepts a bias that it does not claim."""

  def with_aux(self, params, q, k, v, call):
    return super().with_aux(params, q, k, v, call._replace(bias=None))


LOCAL = battery.cases()["local"]
HIDDEN = r"query \d moves by .* when token \d, which '{}' hides"
BITES = (
  Bite(Ungrouped(), "claims fit the class", "claim supports_gqa=False", "honours causal"),
  Bite(WideLocal(window=3), "equals its oracle", "query", "honours causal", LOCAL),
  Bite(WideLocal(window=3), "receptive field is as declared", r"query (\d) reads key \d, .*may not"),
  Bite(NarrowLocal(window=3), "receptive field is as declared", r"never reads key \d, .*may", "honours kv_valid"),
  Bite(ShiftedMask(), "honours window", HIDDEN.format("window")),
  Bite(ShiftedMask(by=-1), "honours window", "does not read key"),
  Bite(LongPrefix(), "honours prefix", HIDDEN.format(r"prefix\+causal")),
  Bite(FirstHead(), "honours explicit", "does not read key"),
  Bite(OneAtATime(), "honours all constraints together", "hides", "honours kv_valid"),
  Bite(WideNormaliser(), "honours causal", HIDDEN.format("causal"), "golden table"),
  Bite(WideNormaliser(), "padding equals truncation", "padding against truncation", "class in the values"),
  Bite(WideNormaliser(), "rows of the map sum to 1", "rows of the map", "nothing readable gives zeros"),
  Bite(TopK(), "honours causal", HIDDEN.format("causal"), "averages the values"),
  Bite(Interleaved(), "groups of heads are blocks", "key heads repeated in blocks", "averages the values"),
  Bite(CentredQueries(), "queries are independent", "other queries were replaced", "rows of the map sum to 1"),
  Bite(OneMap(), "heads are independent", "first key head", "averages the values"),
  Bite(Transposed(), "rows of the map sum to 1", "rows of the map", "class in the values"),
  Bite(Squared(), "class in the values", "claims to be linear in v and is nonlinear", "honours causal"),
  Bite(Silent(), "refuses undeclared demands", "'bias' is not claimed, yet accepted", "rows of the map sum to 1"),
)
