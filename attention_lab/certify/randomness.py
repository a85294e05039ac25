"""Randomness: what a key draws is drawn for each example, head, query and key by itself."""

import dataclasses
import itertools

import jax
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.certify.finding import NOT_RUN, Refuted, require
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

KEYS = 512  # random keys under which outputs are correlated
CORRELATION = 0.5  # largest correlation; that of independent noise is about 1 / √KEYS
SILENT = 1e-6  # standard deviation below which an output has no noise
DROPPED = 0.4  # rate of a dropout field that is 0


def independent(subject: VariantUnderTest) -> str:
  """Over many keys, what moves in one example, head, query or key does not move along with that of another."""
  subject = _random(subject)
  shape = subject.shape(B=3, T=6, S=6, V=6)
  inputs, params = _alike(subject.inputs(shape), shape), subject.params(shape.dims())

  def drawn(params, inputs, keys):
    return jax.vmap(lambda key: subject.eager(params, inputs, Call(subject.mask(), key=key)))(keys)

  keys = jax.random.split(jax.random.key(0), 128 if subject.quick else KEYS)
  outs = np.asarray(subject.compiled(drawn)(params, inputs, keys), np.float64)
  require(bool(np.any(outs.std(axis=0) > SILENT)), "no key acts on its output")
  if not subject.claims.random:
    raise Refuted(f"{subject.spec} claims random=False, and keys give different outputs", shape=shape)
  for axis, name in ((1, "examples"), (3, "heads"), (2, "queries"), (4, "keys")):
    _uncorrelated(outs, axis, name, shape)
  return f"over {shape.B} examples, {shape.N} heads, {shape.T} queries and keys; {len(keys)} draws"


def _random(subject: VariantUnderTest) -> VariantUnderTest:
  """The subject, its dropout switched on where it has a rate of 0; undecided where it takes no key."""
  names = [field.name for field in dataclasses.fields(subject.variant) if "dropout" in field.name]
  rates = [name for name in names if type(getattr(subject.variant, name)) is float]
  off = {name: DROPPED for name in rates if getattr(subject.variant, name) == 0.0}
  require(bool(off) or subject.claims.random, "uses no key")
  require("v" in subject.variant.projections, "reads no values that could show its randomness", NOT_RUN)
  return dataclasses.replace(subject, variant=dataclasses.replace(subject.variant, **off))


def _alike(inputs: Inputs, shape: Shape) -> Inputs:
  """The same query everywhere, the same keys in all examples and heads, and values that show each key's weight."""
  q = None if inputs.q is None else np.broadcast_to(inputs.q[:1, :1, :1], inputs.q.shape)
  k = None if inputs.k is None else 0.1 * np.broadcast_to(inputs.k[:1, :, :1], inputs.k.shape)
  v = np.broadcast_to(np.eye(shape.S, dtype=np.float32)[None, :, None], inputs.v.shape)
  return inputs._replace(q=q, k=k, v=v, x=np.broadcast_to(inputs.x[:1, :1], inputs.x.shape))


def _uncorrelated(outs: np.ndarray, axis: int, name: str, shape: Shape) -> None:
  """Refutes where the noise at two indices of an axis of the outputs `keys B T N V` goes together."""
  noise = outs - outs.mean(axis=0)
  for a, b in itertools.combinations(range(outs.shape[axis]), 2):
    first, second = (np.take(noise, index, axis) for index in (a, b))
    deviation = first.std(axis=0), second.std(axis=0)
    moving = (deviation[0] > SILENT) & (deviation[1] > SILENT)
    correlation = np.mean(first * second, axis=0)[moving] / (deviation[0] * deviation[1])[moving]
    together = float(np.mean(correlation)) if correlation.size else 0.0
    if abs(together) > CORRELATION:
      detail = f"the noise of {name} {a} and {b} has the correlation {together:.2f}: it is drawn for both at once"
      raise Refuted(detail, shape=shape, position=f"{name} {a} and {b}")


PROOFS = {"randomness is independent": independent}
