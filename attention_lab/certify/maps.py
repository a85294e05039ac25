"""The map from values to outputs: its class, its rows, and that it averages."""

import dataclasses

import jax
import numpy as np

from attention_lab.attention import attention_maps
from attention_lab.attention.base import Call
from attention_lab.certify import random_calls
from attention_lab.certify.equality import readable_pairs
from attention_lab.certify.finding import FORWARD, Refuted, require, same
from attention_lab.certify.under_test import Inputs, VariantUnderTest

GOLDEN = (2.57521, 2.85093, 2.94799)  # outputs for q = k = v = 1, 2, 3
CAUSAL_GOLDEN = (1.0, 1.88080, 2.94799)  # the same under a causal mask


def values(subject: VariantUnderTest) -> str:
  """The output as a function of v is what is claimed: linear, affine, or neither."""
  require("v" in subject.variant.projections, "reads no values")
  measured = "linear"
  for seed in range(subject.draws):
    measured = max(measured, _class(subject, seed), key=("linear", "affine", "nonlinear").index)
  if measured != subject.claims.values:
    raise Refuted(f"claims to be {subject.claims.values} in v and is {measured}", shape=subject.shape())
  return f"measured {measured}, {subject.draws} draws"


def _class(subject: VariantUnderTest, seed: int) -> str:
  """`linear`, `affine` or `nonlinear`, of one draw."""
  shape = subject.shape()
  inputs = subject.inputs(shape, seed)
  q, k, x = (a if a is None else np.broadcast_to(a[:1], a.shape) for a in (inputs.q, inputs.k, inputs.x))
  a, b = inputs.v
  calls = ((a, b), (2.0 * a - 3.0 * b, np.zeros_like(a)))
  outs = [subject.run(Inputs(q, k, np.stack(v), x), shape, Call(subject.mask())) for v in calls]
  (out_a, out_b), (both, offset) = outs
  bound = FORWARD * max(1.0, float(np.max(np.abs(outs))))
  if np.max(np.abs((both - offset) - 2.0 * (out_a - offset) + 3.0 * (out_b - offset))) > bound:
    return "nonlinear"
  return "affine" if np.max(np.abs(offset)) > bound else "linear"


def weights(subject: VariantUnderTest) -> str:
  """The probed map has no negative entry, its rows sum to 1 over readable keys, and hidden keys have weight 0."""
  require(
    subject.claims.exactness == "exact" and subject.claims.values != "nonlinear" and "v" in subject.variant.projections,
    "not claimed to be exact softmax weights",
  )
  shape = subject.shape(T=6, S=7, K=2, cross=True) if subject.claims.cross else subject.shape(T=7, S=7)
  params = subject.params(shape.dims())

  def probed(inputs, call):
    q, k, v, x, y = inputs
    return attention_maps.weights(subject.variant, params, q, k, v, call._replace(x=x, y=y))

  program = subject.compiled(probed)
  for seed in range(subject.draws):
    call = random_calls.call(subject, shape, ("explicit", "kv_valid"), seed)
    maps = np.asarray(program(subject.inputs(shape, seed), call))
    readable = readable_pairs(call, shape)
    if float(maps.min()) < -1e-6:
      raise Refuted(f"the map has the weight {maps.min():.3g}", shape=shape, seed=seed)
    same(maps.sum(axis=-1), readable.any(axis=-1), "rows of the map", shape=shape, seed=seed)
    same(np.where(readable, 0.0, maps), np.zeros_like(maps), "weights of hidden keys", shape=shape, seed=seed)
  return f"{subject.draws} maps at {shape}"


def averages(subject: VariantUnderTest) -> str:
  """Equal values pass unchanged, and outputs lie between the smallest and the largest value."""
  require(
    subject.claims.exactness == "exact" and subject.claims.values == "linear" and "v" in subject.variant.projections,
    "not claimed to be an average of values",
  )
  shape, call = subject.shape(), Call(subject.mask())
  for seed in range(subject.draws):
    inputs = subject.inputs(shape, seed)
    equal = np.broadcast_to(inputs.v[:, :1, :1], inputs.v.shape)
    expected = np.broadcast_to(equal[:, :1, :1], (shape.B, shape.T, shape.N, shape.V))
    same(subject.run(inputs._replace(v=equal), shape, call), expected, "equal values", shape=shape, seed=seed)
    out, group = subject.run(inputs, shape, call), shape.N // shape.K
    low, high = (np.repeat(f(inputs.v, axis=1, keepdims=True), group, axis=2) for f in (np.min, np.max))
    same(np.clip(out, low, high), out, "values' convex hull", shape=shape, seed=seed)
  return f"{subject.draws} draws"


def golden(subject: VariantUnderTest) -> str:
  """In its default setting with scale 1, queries, keys and values 1, 2, 3 give what is known to four digits."""
  claims, fields = subject.claims, dataclasses.fields(subject.variant)
  require(claims.exactness == "exact" and not claims.encodes_positions, "not claimed to be plain softmax attention")
  plain = type(subject.variant)(**{field.name: 1.0 for field in fields if field.name == "scale"})
  shape = subject.shape(B=1, T=3, S=3, N=1, K=1, H=1, V=1)
  numbers = np.arange(1, 4, dtype=np.float32).reshape(1, 3, 1, 1)
  q, k, v = (numbers if letter in plain.projections else None for letter in "qkv")
  run = dataclasses.replace(subject, variant=plain).forward
  out = run(subject.init(jax.random.key(0), shape.dims()), Inputs(q, k, v, None), Call(subject.mask()))
  expected = CAUSAL_GOLDEN if claims.requires_causal else GOLDEN
  same(out, np.asarray(expected, np.float32).reshape(1, 3, 1, 1), "the golden table", tolerance=2e-5, shape=shape)
  return f"{', '.join(f'{value:.4f}' for value in expected)}"


PROOFS = {
  "golden table": golden,
  "class in the values": values,
  "rows of the map sum to 1": weights,
  "averages the values": averages,
}
