"""Odd input: biases that stand for masks, and queries and keys far from 0."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify.equality import LOSS_TOLERANCE, Cell, example, float64_params
from attention_lab.certify.finding import NOT_GIVEN, Refuted, require, same
from attention_lab.certify.under_test import Inputs, Shape, VariantUnderTest

LARGE = -1e9  # a bias that is often written for a mask; float64 keeps the logits beside it, float32 does not
HIDING = (-np.inf, float(np.finfo(np.float32).min), LARGE)
HIDDEN_QUERY = 3  # the query from which the bias hides every key
FAR = 100.0  # size of queries and keys
FAR_LENGTHS = (1, 2, 65)  # tokens
FAR_ERROR = 1e-5  # largest error there, relative to the largest output


def hiding_biases(subject: VariantUnderTest) -> str:
  """A bias of −∞ hides keys as a mask does; one of −10⁹ and the least float32 add a constant to a whole row.

  Values are those of the oracle, gradients are finite, and auxiliary losses are those under the explicit mask.
  """
  require(subject.claims.bias, "takes no bias")
  shape = subject.shape(T=6, S=6, K=2, H=4)
  params, inputs, rng = subject.params(shape.dims()), subject.inputs(shape), np.random.default_rng(5)
  seen = (rng.random((shape.B, shape.N, shape.T, shape.S)) < 0.6) | np.eye(shape.T, dtype=bool)
  seen[:, :, HIDDEN_QUERY] &= subject.case is None  # of other people's code, JAX's too, a row of −∞ alone may be NaN
  bias, losses = rng.normal(size=seen.shape).astype(np.float32), subject.compiled(subject.losses)
  plain = Call(subject.mask(), bias=jnp.asarray(np.where(seen, bias, 0.0), jnp.float32))
  masked = plain._replace(mask=plain.mask & Mask(explicit=jnp.asarray(seen)))
  explicit, has_losses = "explicit" in subject.claims.masks, bool(jax.eval_shape(losses, params, inputs, plain))
  worst, count = 0.0, 0
  for value in HIDING:
    what, call = f"a bias of {value:.3g}", plain._replace(bias=jnp.asarray(np.where(seen, bias, value), jnp.float32))
    out, grads = subject.gradient(params, inputs, call, np.ones((shape.B, shape.T, shape.N, shape.V), np.float32))
    if not all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves((out, grads))):
      raise Refuted(f"{what}: the output or a gradient is not finite", shape=shape)
    if subject.case is not None:
      hidden = seen if value == -np.inf else None
      expected = _expected(subject, shape, inputs, plain if value == -np.inf else _float64(plain, seen), hidden)
    elif value == -np.inf and explicit:
      expected = np.asarray(subject.forward(params, inputs, masked))
    else:
      continue
    worst, count = max(worst, same(out, expected, what, shape=shape)), count + 1
    if has_losses and explicit:
      _compare_losses(what, losses(params, inputs, call), losses(params, inputs, masked), shape)
  return f"{count} biases, largest error {worst:.0e}"


def far(subject: VariantUnderTest) -> str:
  """Features of queries and keys of ±100 lose no digit: sums that cancel or vanish in float32 show."""
  claims, reads_keys = subject.claims, "k" in subject.variant.projections
  linear = (
    claims.state_exponent == 0 and claims.time_exponent == 1 and not claims.bias
  )  # logits of 10⁴ have no digits left
  require(linear and reads_keys, "has no features of queries and keys that are added up")
  require(subject.case is not None, "no oracle", NOT_GIVEN)
  worst = 0.0
  for T in FAR_LENGTHS[:2] if subject.quick else FAR_LENGTHS:
    shape = subject.shape(B=1, T=T, S=T, N=2, K=2, room=2)
    for causal, largest in ((False, FAR), (True, getattr(subject.case, "FAR_CAUSAL", FAR))):
      call = Call(subject.mask(Mask(causal=causal)))
      for center in (-1.0, 0.0, 1.0):
        inputs = _far_inputs(subject, shape, center, largest)
        out = subject.forward(subject.params(shape.dims()), inputs, call)
        what = f"{'causal' if causal else 'no mask'}, queries and keys near {center * largest:g}"
        expected = _expected(subject, shape, inputs, call)
        error = same(out, expected, what, tolerance=FAR_ERROR, shape=shape)
        worst = max(worst, error)
  return f"queries and keys of ±{FAR:g}, largest error {worst:.0e}"


def _far_inputs(subject: VariantUnderTest, shape: Shape, center: float, size: float) -> Inputs:
  """Inputs with queries and keys within ±size, all about `center` · size where that is not 0."""
  inputs, rng = subject.inputs(shape), np.random.default_rng(6)

  def moved(array: np.ndarray) -> np.ndarray:
    spread = rng.uniform(-1.0, 1.0, array.shape) * (size if center == 0.0 else min(size, 1.0))
    return np.clip(center * size + spread, -size, size).astype(np.float32)

  return inputs._replace(q=moved(inputs.q), k=moved(inputs.k))


def _float64(call: Call, seen: np.ndarray) -> Call:
  """The call with −10⁹ where a key is not seen, which in float64 stands for the least float32 too."""
  bias: Any = np.where(seen, np.asarray(call.bias, np.float64), LARGE)
  return call._replace(bias=bias)


def _expected(
  subject: VariantUnderTest, shape: Shape, inputs: Inputs, call: Call, seen: np.ndarray | None = None
) -> np.ndarray:
  """The oracle's outputs `B T N V`, of the keys in `seen` alone."""
  params, rows = float64_params(subject, Cell(shape)), []
  for b in range(shape.B):
    row = example(inputs, call, Cell(shape), b)
    row = row if seen is None else dataclasses.replace(row, readable=row.readable & seen[b])
    rows.append(subject.case.oracle(subject.variant, params, row))
  return np.stack(rows)


def _compare_losses(what: str, values: dict[str, Any], expected: dict[str, Any], shape: Shape) -> None:
  for name, value in expected.items():
    if not abs(float(values[name]) - float(value)) <= LOSS_TOLERANCE * abs(float(value)):
      detail = f"{what}: the loss {name} is {float(values[name]):.6g}, and {float(value):.6g} under the explicit mask"
      raise Refuted(detail, shape=shape)


PROOFS = {
  "a bias of -inf hides keys": hiding_biases,
  "right at inputs of 100": far,
}
