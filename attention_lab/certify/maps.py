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
TABLE = 2e-5  # largest error of such a row


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
  """In its default setting, queries, keys and values 1, 2, 3 give softmax(q·k), which is known to four digits.

  A class without a field `scale` may have any scale c, the same for every row and length, and may bend large logits as
  a soft cap does: it is compared with softmax(c·q·k), if need be at queries and keys of a tenth.
  """
  claims, fields = subject.claims, dataclasses.fields(subject.variant)
  require(claims.exactness == "exact" and not claims.encodes_positions, "not claimed to be plain softmax attention")
  scaled = "scale" in (field.name for field in fields)
  settings = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
  settings |= {"scale": 1.0} if scaled else {}
  plain = dataclasses.replace(subject, variant=dataclasses.replace(subject.variant, **settings))
  out = _row(plain, 3, 1.0)
  table = np.asarray(CAUSAL_GOLDEN if claims.requires_causal else GOLDEN)
  if scaled or np.max(np.abs(out - table)) <= TABLE * table.max():
    same(out, table, "the golden table", tolerance=TABLE)
    return ", ".join(f"{value:.4f}" for value in table)
  for size in (1.0, 0.1):
    scale = _scale(float(_row(plain, 3, size)[1]), size, claims.requires_causal)
    rows = [(_row(plain, length, size), _softmax_row(length, size, scale, claims.requires_causal)) for length in (3, 2)]
    if size == 0.1 or all(np.max(np.abs(value - expected)) <= TABLE for value, expected in rows):
      break
  for value, expected in rows:
    what = f"the golden table of softmax({scale:.4g}·q·k) at q, k = {size:g}, …, {len(value) * size:g}"
    same(value, expected, what, tolerance=TABLE)
  return f"softmax of {scale:.4g}·q·k" + (" where logits are small" if size < 1 else "")


def _row(subject: VariantUnderTest, length: int, size: float) -> np.ndarray:
  """The outputs for values 1, 2, … `length`, queries and keys that times `size`."""
  shape = subject.shape(B=1, T=length, S=length, N=1, K=1, H=1, V=1)
  numbers = np.arange(1, length + 1, dtype=np.float32).reshape(1, length, 1, 1)
  arrays = {"q": np.float32(size) * numbers, "k": np.float32(size) * numbers, "v": numbers}
  q, k, v = (arrays[letter] if letter in subject.variant.projections else None for letter in "qkv")
  params = subject.init(jax.random.key(0), shape.dims())
  return np.asarray(subject.forward(params, Inputs(q, k, v, None), Call(subject.mask())))[0, :, 0, 0]


def _softmax_row(length: int, size: float, scale: float, causal: bool) -> np.ndarray:
  """What softmax(scale·q·k) gives in the place of `_row`."""
  numbers = np.arange(1.0, length + 1)
  logits = scale * size**2 * np.outer(numbers, numbers)
  logits = np.where(np.tri(length, dtype=bool), logits, -np.inf) if causal else logits
  weights = np.exp(logits - logits.max(axis=1, keepdims=True))
  return weights @ numbers / weights.sum(axis=1)


def _scale(output: float, size: float, causal: bool) -> float:
  """The scale at which the second row of three tokens comes to `output`, by bisection between ±100."""
  low, high = -100.0, 100.0
  for _ in range(60):
    middle = (low + high) / 2
    low, high = (middle, high) if _softmax_row(3, size, middle, causal)[1] < output else (low, middle)
  return low


PROOFS = {
  "golden table": golden,
  "class in the values": values,
  "rows of the map sum to 1": weights,
  "averages the values": averages,
}
