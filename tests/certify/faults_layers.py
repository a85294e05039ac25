"""Faults of the parts around a mechanism: convolution, norm, gate and skip."""

import contextlib
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax.numpy as jnp
from faults import HIDDEN, Bite, Dense, frozen

from attention_lab.attention.composed import Composed
from attention_lab.attention.layer_parts import Conv, Gate, Norm, Skip
from attention_lab.attention.mask import CAUSAL
from attention_lab.attention.variants.linear import Linear
from attention_lab.certify import composed_case

CONV, TAIL, GATE, NORM, SKIP = Conv.__call__, Conv.next_tail, Gate.__call__, Norm.__call__, Skip.__call__


@frozen
class Planted(Composed):
  """A composed layer in which one method of one part has a fault."""

  part: type = Conv
  method: str = "__call__"
  fault: Callable[..., Any] = CONV

  def attend(self, params, q, k, v, call):
    with self._planted():
      return super().attend(params, q, k, v, call)

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask=CAUSAL):
    with self._planted():
      return super().extend(params, state, q, k, v, x=x, lengths=lengths, mask=mask)

  def _planted(self) -> contextlib.AbstractContextManager:
    return mock.patch.object(self.part, self.method, self.fault)


def endless(self, kernel, tokens, tail, runs, hidden):
  """A convolution that reads back over the border of a segment."""
  return CONV(self, kernel, tokens, tail, None, hidden)


def ahead(self, kernel, tokens, tail, runs, hidden):
  """A convolution that begins at the next token."""
  later = jnp.pad(tokens[:, 1:], ((0, 0), (0, 1), (0, 0), (0, 0)))
  return CONV(self, kernel, later, tail, runs, hidden)


def blind(self, kernel, tokens, tail, runs, hidden):
  """A convolution that reads padding."""
  return CONV(self, kernel, tokens, tail, runs, None)


def reversed_weights(self, kernel, tokens, tail, runs, hidden):
  """A convolution that takes the last weight for the token itself, as libraries store them."""
  return CONV(self, kernel[..., ::-1], tokens, tail, runs, hidden)


def no_tail(self, tail, tokens, lengths):
  """A piece of a sequence begins as if nothing had been before it."""
  return jnp.zeros_like(tail)


def padded_tail(self, tail, tokens, lengths):
  """The last tokens of a piece are kept, be they padding."""
  return TAIL(self, tail, tokens, None)


def earlier_gate(self, params, out, x, v):
  """A gate out of the input of the token before."""
  return GATE(self, params, out, jnp.roll(x, 1, axis=1), v)


def sigmoid_gate(self, params, out, x, v):
  """A gate with a sigmoid, whatever its setting."""
  return GATE(Gate("sigmoid", self.per), params, out, x, v)


def wide_norm(self, params, out, x, v):
  """A norm over all heads of the layer, with the gains of each alone."""
  return NORM(Norm("layer"), {"gain": jnp.broadcast_to(params["gain"], out.shape[2:])}, out, x, v)


def token_norm(self, params, out, x, v):
  """A norm of each channel over the tokens."""
  gain = jnp.ones(out.shape[1])
  return params["gain"][None, None, None] * NORM(self, {"gain": gain}, out.swapaxes(1, 3), x, v).swapaxes(1, 3)


def gainless_norm(self, params, out, x, v):
  """A norm that has gains and does not multiply by them."""
  return NORM(self, {"gain": jnp.ones_like(params["gain"])}, out, x, v)


def interleaved_skip(self, params, out, x, v):
  """The value of key head n mod K is added to query head n."""
  return SKIP(self, params, out, x, jnp.tile(v, (1, 1, out.shape[2] // v.shape[2], 1)))


def convolved(fault, method="__call__", mechanism=Dense()):
  """A mechanism behind a convolution that has a fault."""
  return Planted((Conv(3),), mechanism, (), part=Conv, method=method, fault=fault)


def followed(part, fault):
  """Linear attention, which has an oracle, before a part that has a fault."""
  return Planted((), Linear(chunk=4), (part,), part=type(part), fault=fault)


BLIND = convolved(blind, mechanism=Linear(chunk=4))
REVERSED = convolved(reversed_weights, mechanism=Linear(chunk=4))
BITES = (
  Bite(convolved(endless), "honours segments", HIDDEN.format("segments"), "honours kv_valid"),
  Bite(convolved(endless), "packed equals separate", "packed from 5", "padding equals truncation"),
  Bite(convolved(ahead), "honours causal", HIDDEN.format("causal")),
  Bite(BLIND, "equals its oracle", "under .*kv_valid", "padding equals truncation", composed_case),
  Bite(BLIND, "honours kv_valid", HIDDEN.format("kv_valid"), "padding equals truncation"),
  Bite(REVERSED, "equals its oracle", "query", "honours causal", composed_case),
  Bite(convolved(no_tail, "next_tail"), "extend in any split", "piece from", "honours causal"),
  Bite(convolved(padded_tail, "next_tail"), "extend of ragged rows", r"row \d of lengths", "extend in any split"),
  Bite(followed(Gate(), earlier_gate), "equals its oracle", "query", case=composed_case),
  Bite(followed(Gate(), earlier_gate), "extend in any split", "piece from"),
  Bite(followed(Gate(), sigmoid_gate), "every hyper-parameter acts", r"'gate\.activation' is accepted and ignored"),
  Bite(followed(Norm(), wide_norm), "equals its oracle", "query", "honours causal", composed_case),
  Bite(followed(Norm(), token_norm), "honours causal", HIDDEN.format("causal")),
  Bite(followed(Norm(), gainless_norm), "equals its oracle", "query", case=composed_case),
  Bite(followed(Norm(), gainless_norm), "every parameter acts", "norm/gain changes nothing", "honours causal"),
  Bite(followed(Skip(), interleaved_skip), "groups of heads are blocks", "key heads repeated in blocks"),
)
