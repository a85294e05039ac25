"""Arithmetic: low precision, extremes, compiled against eager, and the same answer twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify.finding import NOT_ASKED, NOT_RUN, Refuted, require, same
from attention_lab.certify.under_test import Shape, VariantUnderTest, is_fixed

BFLOAT16 = 2.0**-6  # largest error in bfloat16 (whose step is 2⁻⁸), relative to the largest output
LOGIT = 1e4
LONG = 4096
STEP, SLOPE = 1e-5, 1e-6  # of central differences in float64, and their relative error
FLOAT32_STEP, FLOAT32_SLOPE = 2e-3, 5e-3  # the same for a variant that computes in float32 whatever its inputs are
DIRECTIONS = 5  # of which the median counts there: a kink that lies within the step spoils one of them, a fault all
SHUT = 30.0  # sigmoid and softplus of ±30 are 0 and 1, or 0 and 30, in float32


def bfloat16(subject: VariantUnderTest) -> str:
  """In bfloat16 the output has its dtype, and is near that of the same numbers in float32."""
  shape = subject.shape(T=7, S=7, H=4)
  call = Call(subject.mask(_padding(subject, shape)))
  params, worst = subject.params(shape.dims()), 0.0
  for seed in range(subject.draws):
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), subject.inputs(shape, seed))
    out = subject.optimised(params, low, call)
    if out.dtype != jnp.bfloat16:
      raise Refuted(f"values in bfloat16 give an output in {out.dtype}", shape=shape, seed=seed)
    exact = subject.optimised(params, jax.tree.map(lambda a: np.asarray(a, np.float32), low), call)
    worst = max(worst, same(out, exact, "bfloat16 against float32", tolerance=BFLOAT16, shape=shape, seed=seed))
  return f"error {worst:.0e} <= {BFLOAT16:.0e}"


def extremes(subject: VariantUnderTest) -> str:
  """Logits of ±1e4 give finite outputs and gradients; so does a single token."""
  for shape, sizes in ((subject.shape(), (1.0, (LOGIT * 3**0.5) ** 0.5)), (subject.shape(T=1, S=1), (100.0,))):
    params, call = subject.params(shape.dims()), Call(subject.mask(_padding(subject, shape)))
    for seed, size in enumerate(sizes):
      inputs = subject.inputs(shape, seed)
      q, k = (None if array is None else array * size for array in inputs[:2])
      inputs = inputs._replace(q=q, k=k)
      out = jax.eval_shape(subject.eager, params, inputs, call)
      _require_finite("output", subject.forward(params, inputs, call), f"at q and k of size {size:.0f}", shape)
      if subject.differentiable and (shape.T > 1 or not subject.quick):
        grads = subject.gradient(params, inputs, call, np.ones(out.shape, np.float32))[1]
        _require_finite("gradient", grads, f"at q and k of size {size:.0f}", shape)
  return f"logits to {LOGIT:g}, lengths 5 and 1"


def lengths(subject: VariantUnderTest) -> str:
  """4,096 tokens give finite outputs."""
  require(not subject.quick, "only in the full battery", NOT_RUN)
  shape = subject.shape(B=1, T=LONG, S=LONG, N=2, K=2, H=4)
  out = subject.optimised(subject.params(shape.dims()), subject.inputs(shape), Call(subject.mask()))
  _require_finite("output", out, f"at {LONG} tokens", shape)
  return f"{LONG} tokens"


def decays(subject: VariantUnderTest) -> str:
  """Gates that are wide open or shut, decays of 0 and 1, give finite outputs and gradients."""
  claims, shape = subject.claims, subject.shape()
  require(claims.decode and claims.state_exponent == 0 and claims.time_exponent == 1, "has no state that could decay")
  params, inputs, call = subject.params(shape.dims()), subject.inputs(shape), Call(subject.mask())
  require(bool(jax.tree.leaves(params)), "has no parameters that could set a decay")
  for shift in (-SHUT, SHUT):
    moved = jax.tree_util.tree_map_with_path(
      lambda path, leaf, shift=shift: leaf + shift if _moves(path, leaf) else leaf, params
    )
    out = subject.forward(moved, inputs, call)
    _require_finite("output", out, f"with parameters shifted by {shift:g}", shape)
    grads = subject.gradient(moved, inputs, call, np.ones(out.shape, np.float32))[1]
    _require_finite("gradient", grads, f"with parameters shifted by {shift:g}", shape)
  return f"parameters shifted by ±{SHUT:g}"


def differences(subject: VariantUnderTest) -> str:
  """In float64 the gradient equals central differences of the variant itself: nothing stops or scales it.

  Where they differ and the variant computes in float32 even so, rounding is no fault: it is compared again with a step
  and a bound that fit float32.
  """
  require(not subject.quick, "only in the full battery", NOT_RUN)
  require(not subject.claims.straight_through, "its gradient is that of a smooth stand-in")
  require(subject.differentiable, "its gradient cannot be taken", NOT_ASKED)
  shape, rng = subject.shape(K=2), np.random.default_rng(3)
  with jax.enable_x64(True):
    point = jax.tree.map(_doubled, (subject.params(shape.dims()), subject.inputs(shape)))
    leaves, tree = jax.tree_util.tree_flatten_with_path(point)
    call = Call(subject.mask(_padding(subject, shape)))

    def product(size, steps):
      moved = [
        jnp.asarray(x + size * step if _moves(path, x) else x) for (path, x), step in zip(leaves, steps, strict=True)
      ]
      out = subject.eager(*jax.tree.unflatten(tree, moved), call)
      return jnp.sum(jnp.sin(jnp.arange(out.size, dtype=out.dtype)).reshape(out.shape) * out)

    run = subject.compiled(jax.value_and_grad(product))

    def slopes(step):
      direction = [_moves(path, leaf) * rng.normal(size=leaf.shape) for path, leaf in leaves]
      ends = [float(run(sign * step, direction)[0]) for sign in (1.0, -1.0)]
      slope, expected = float(run(0.0, direction)[1]), (ends[0] - ends[1]) / (2 * step)
      return abs(slope - expected) / max(1.0, abs(expected)), slope, expected

    (error, slope, expected), bound, note = slopes(STEP), SLOPE, ""
    if not error <= bound and _narrowest(jax.make_jaxpr(product)(0.0, [leaf for _, leaf in leaves]).jaxpr) == 4:
      error, slope, expected = sorted(slopes(FLOAT32_STEP) for _ in range(DIRECTIONS))[DIRECTIONS // 2]
      bound, note = FLOAT32_SLOPE, ", in float32, which the variant computes in"
  if not error <= bound:
    raise Refuted(
      f"the gradient along a random direction is {slope:.9g}, and {expected:.9g} is right{note}", shape=shape
    )
  return f"error {error:.0e} <= {bound:.0e}{note}"


def _narrowest(jaxpr: core.Jaxpr) -> int:
  """Bytes of the narrowest floating-point number that a program computes; 8 where there is none."""
  sizes = [8]
  for equation in jaxpr.eqns:
    outputs = [variable.aval.dtype for variable in equation.outvars if hasattr(variable.aval, "dtype")]
    sizes += [dtype.itemsize for dtype in outputs if jnp.issubdtype(dtype, jnp.floating)]
    sizes += [_narrowest(inner) for inner in core.jaxprs_in_params(equation.params)]
  return min(sizes)


def _moves(path: tuple, leaf: Any) -> bool:
  return np.issubdtype(leaf.dtype, np.floating) and not is_fixed(path)


def _doubled(array: Any) -> np.ndarray:
  array = np.asarray(array)
  return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array


def _require_finite(what: str, tree: Any, where: str, shape: Shape) -> None:
  if not all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(tree)):
    raise Refuted(f"the {what} is not finite {where}", shape=shape)


def compiled(subject: VariantUnderTest) -> str:
  """Compiled equals eager."""
  shape, call = subject.shape(), Call(subject.mask())
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  error = same(
    subject.optimised(params, inputs, call),
    subject.eager(params, jax.tree.map(jnp.asarray, inputs), call),
    "compiled against eager",
    shape=shape,
    seed=0,
  )
  return f"largest error {error:.0e}"


def repeatable(subject: VariantUnderTest) -> str:
  """The same call twice gives the same bits; the key acts where randomness is claimed, and nowhere else."""
  shape, mask = subject.shape(), subject.mask()
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)

  def out(seed: int | None) -> np.ndarray:
    key = None if seed is None else jax.random.key(seed)
    return np.asarray(subject.forward(params, inputs, Call(mask, key=key)))

  for seed in (None, 0):
    same(out(seed), out(seed), f"the same call twice, key {seed}", tolerance=0.0, shape=shape)
  moves = bool(np.any(out(0) != out(1)))
  if moves != subject.claims.random:
    raise Refuted(
      f"claims random={subject.claims.random}, and two keys give {'different' if moves else 'equal'} outputs",
      shape=shape,
    )
  return "the key acts" if moves else "declines the key"


def _padding(subject: VariantUnderTest, shape: Shape) -> Mask:
  """Padding that hides every key of the last example, where padding is honoured."""
  valid = np.repeat(np.arange(shape.B)[:, None] < shape.B - 1, shape.S, axis=1)
  return Mask(kv_valid=jnp.asarray(valid)) if "kv_valid" in subject.claims.masks else Mask()


PROOFS = {
  "bfloat16 is near float32": bfloat16,
  "finite under extremes": extremes,
  "gradient equals differences in float64": differences,
  "finite at length 4096": lengths,
  "finite when gates are open or shut": decays,
  "compiled equals eager": compiled,
  "the same call twice": repeatable,
}
