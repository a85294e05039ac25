"""Whether a class fits the interface and takes the calls that it claims: one line for each cause, before any proof.

A claim that is left at its default and not honoured would fail in a dozen proofs. It is looked for first, reported
once with the way to give it up, and taken as withdrawn by the other proofs.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import EVERY_MASK, Attention, AttentionOutput, Call, Claims
from attention_lab.attention.mask import NAMES, Mask
from attention_lab.certify import decoding, leaks
from attention_lab.certify.demands import demand
from attention_lab.certify.finding import Refuted, same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

CLAIM = "claims fit the class"
FITS = "takes every kind of call that it claims"
CHOICES = {"values": ("linear", "affine", "nonlinear"), "exactness": ("exact", "approximate", "other")}


class Misfit(NamedTuple):
  """A claim that the class does not honour: what happens, how to mend it, and the claims without it."""

  reason: str
  changes: dict[str, Any]


def proof(subject: VariantUnderTest) -> str:
  """The class defines what the interface asks for, and takes every kind of call that it claims to take."""
  wrong = misfits(subject)
  if wrong:
    raise Refuted("; ".join(misfit.reason for misfit in wrong))
  return FITS


def misfits(subject: VariantUnderTest) -> tuple[Misfit, ...]:
  """The claims that the class does not honour.

  Args:
    subject: the variant under test.

  Returns:
    One entry for each cause; none where all is well.

  Raises:
    Refuted: not even a plain call can be made, so that nothing else can be examined.
  """
  _require_claims(subject)
  _require_signature(subject.variant)
  shape = subject.shape()._replace(K=4)
  _attempt("init", lambda: jax.eval_shape(lambda: subject.variant.init(jax.random.key(0), shape.dims())))
  _attempt("a call without a mask", lambda: _traced(subject, shape, Call(subject.mask())))
  wrong = list(_refused_calls(subject))
  changes = {name: value for misfit in wrong for name, value in misfit.changes.items()}
  return (*wrong, *_wrong_values(withdrawn(subject, changes) if wrong else subject))


def withdrawn(subject: VariantUnderTest, changes: dict[str, Any]) -> VariantUnderTest:
  """The variant under test with other claims, under its name; what it no longer claims is refused."""
  kind: Any = type(subject.variant)
  members = {"__module__": kind.__module__, "__doc__": kind.__doc__}
  members["claims"] = lambda self: dataclasses.replace(kind.claims(self), **changes)
  settings = {field.name: getattr(subject.variant, field.name) for field in dataclasses.fields(kind) if field.init}
  return dataclasses.replace(subject, variant=type(kind.__name__, (kind,), members)(**settings))


def _require_claims(subject: VariantUnderTest) -> None:
  """Refutes where `claims` raises or returns anything but legal claims."""
  claims = _attempt("claims", subject.variant.claims)
  if not isinstance(claims, Claims):
    raise Refuted(f"claims() returns {type(claims).__name__}: it must return Claims(…) of attention.base")
  unknown = sorted(set(claims.masks) - EVERY_MASK)
  if unknown:
    raise Refuted(f"claims the masks {', '.join(unknown)}, which are none of {', '.join(NAMES)}")
  for name, choices in CHOICES.items():
    if getattr(claims, name) not in choices:
      raise Refuted(f"claims {name}={getattr(claims, name)!r}, which is none of {', '.join(choices)}")


def _require_signature(variant: Attention) -> None:
  """Refutes where `attend` takes other arguments than the interface gives it."""
  try:
    inspect.signature(variant.attend).bind("params", "q", "k", "v", "call")
  except TypeError as error:
    taken = inspect.signature(variant.attend)
    raise Refuted(f"attend takes {taken}: it must take (self, params, q, k, v, call): {error}") from error


def _attempt(what: str, function: Callable[[], Any]) -> Any:
  """The result of a function of the class; Refuted, in one line, where it raises."""
  try:
    return function()
  except Refuted as refuted:
    raise Refuted(f"{what}: {refuted.detail}") from refuted
  except KeyError as error:
    raise Refuted(f"{what} reads {error}, which init does not make: return it from init(self, key, dims)") from error
  except Exception as error:  # a class of somebody's may raise anything
    raise Refuted(f"{what} ends in {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error


def _traced(subject: VariantUnderTest, shape: Shape, call: Call) -> None:
  """Traces one call; refutes where the output is not an array of floats `B T N V`."""
  params = jax.eval_shape(lambda: subject.variant.init(jax.random.key(0), shape.dims()))

  def attend(params: Any, inputs: Inputs, call: Call) -> Any:
    q, k, v, x, y = inputs
    result = subject.variant.attend(params, q, k, v, call._replace(x=x, y=y))
    out = result.out if isinstance(result, AttentionOutput) else result
    if not isinstance(out, jax.Array | np.ndarray):
      raise Refuted(f"attend returns {type(out).__name__}: it must return an array B T N V, or AttentionOutput")
    return out

  out = jax.eval_shape(attend, params, subject.inputs(shape), call)
  expected = (shape.B, shape.T, shape.N, shape.V)
  if "o" in subject.variant.projections and out.shape != expected:
    raise Refuted(f"attend returns the shape {out.shape}: it must return B T N V, here {expected}")
  if not jnp.issubdtype(out.dtype, jnp.floating):
    raise Refuted(f"attend returns {out.dtype}: it must return floating-point numbers")


def _refused_calls(subject: VariantUnderTest) -> Iterator[Misfit]:
  """Kinds of calls that are claimed and end in an error, those with the same error in one line."""
  claims, shape = subject.claims, subject.shape()._replace(K=4)
  bias = jnp.zeros((shape.B, shape.N, shape.T, shape.S))
  calls: dict[str, tuple[bool, Call, Shape, str]] = {
    "supports_gqa": (claims.supports_gqa, Call(subject.mask()), shape._replace(K=2), "4 query heads on 2 key heads"),
    "cross": (claims.cross, Call(subject.mask()), subject.shape(S=7, cross=True)._replace(K=4), "5 queries of 7 keys"),
    "bias": (claims.bias, Call(subject.mask(), bias=bias), shape, "a bias"),
  }
  for name, (claimed, call, sizes, what) in calls.items():
    error = _error(functools.partial(_traced, subject, sizes, call)) if claimed else ""
    if error:
      yield Misfit(
        f"{name}=True is claimed, and a call with {what}{error}: mend it, or claim {name}=False", {name: False}
      )
  errors: dict[str, list[str]] = {}
  for name in sorted(claims.masks):
    error = _error(functools.partial(_traced, subject, shape, Call(subject.mask(demand(name)))))
    errors.setdefault(error, []).append(name)
  honoured = frozenset(errors.pop("", ()))
  for error, names in errors.items():
    reason = f"masks={{{', '.join(names)}}} is claimed, and a call with it{error}: mend it, or leave it out of masks"
    yield Misfit(reason, {"masks": honoured})
  if claims.decode:
    yield from _undecodable(subject, honoured)


def _undecodable(subject: VariantUnderTest, honoured: frozenset[str]) -> Iterator[Misfit]:
  """Decoding that is claimed and cannot even be traced."""
  shape = subject.shape(B=2, T=3, S=3)._replace(K=4)
  if "causal" not in honoured:
    reason = "decode=True is claimed without the mask 'causal': add it to masks, or claim decode=False"
    yield Misfit(reason, {"decode": False})
    return

  def extend() -> None:
    params = jax.eval_shape(lambda: subject.variant.init(jax.random.key(0), shape.dims()))
    state = jax.eval_shape(lambda: subject.variant.init_state(shape.B, shape.dims(), jnp.float32))
    out = jax.eval_shape(subject.extend_eagerly, params, state, subject.inputs(shape), None, Mask(causal=True))[1]
    if "o" in subject.variant.projections and out.shape != (shape.B, shape.T, shape.N, shape.V):
      raise Refuted(f"extend returns the shape {out.shape}, not B T N V")

  error = _error(extend)
  if error:
    yield Misfit(f"decode=True is claimed, and extend{error}: mend it, or claim decode=False", {"decode": False})


def _error(function: Callable[[], Any]) -> str:
  """What a call ends in, as ` ends in TypeError: …`; empty where it succeeds."""
  try:
    _attempt("it", function)
  except Refuted as refuted:
    return refuted.detail.removeprefix("it")
  return ""


def _wrong_values(subject: VariantUnderTest) -> Iterator[Misfit]:
  """Claims that a call takes and does not honour: exact softmax, and decoding by the cache of the base class."""
  claims = subject.claims
  if claims.exactness == "exact" and claims.values == "linear" and "v" in subject.variant.projections:
    error = _error(lambda: _require_average(subject))
    if error:
      reason = f"exactness='exact' is claimed, and a call without a mask{error}: mend it, or claim exactness='other'"
      yield Misfit(reason, {"exactness": "other"})
  if claims.decode and type(subject.variant).extend is Attention.extend:
    error = _error(lambda: decoding.law(subject, Mask(causal=True), ((4, 1, 4),), draws=1))
    if error:
      reason = (
        f"decode=True is claimed, and a sequence in pieces, which are to equal one causal call{error}: "
        "hide keys by call.mask.dense(T, S, call.positions), or claim decode=False"
      )
      yield Misfit(reason, {"decode": False})


def _require_average(subject: VariantUnderTest) -> None:
  """Refutes where a call without a mask shows that the output is no average of all values."""
  shape, call = subject.shape(), Call(subject.mask())
  inputs = subject.inputs(shape)
  equal = np.broadcast_to(inputs.v[:, :1, :1], inputs.v.shape)
  expected = np.broadcast_to(equal[:, :1, :1], (shape.B, shape.T, shape.N, shape.V))
  same(subject.run(inputs._replace(v=equal), shape, call), expected, "equal values do not pass unchanged", shape=shape)
  leaks.require_all_read(subject)


PROOFS = {CLAIM: proof}
