"""Arithmetic: low precision, extremes, compiled against eager, and the same answer twice."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify.comparison import same
from attention_lab.certify.finding import Refuted
from attention_lab.certify.subject import Shape, Subject

BFLOAT16 = 2.0**-6  # largest error in bfloat16 (whose step is 2⁻⁸), relative to the largest output
LOGIT = 1e4


def bfloat16(subject: Subject) -> str:
  """In bfloat16 the output has its dtype, and is near that of the same numbers in float32."""
  shape = subject.shape(T=7, S=7, H=4)
  call = Call(subject.mask(_padding(subject, shape)))
  params, worst = subject.params(shape.dims()), 0.0
  for seed in range(subject.draws):
    low = jax.tree.map(lambda a: a.astype(jnp.bfloat16), subject.inputs(shape, seed))
    out = subject.forward(params, low, call)
    if out.dtype != jnp.bfloat16:
      raise Refuted(f"values in bfloat16 give an output in {out.dtype}", shape=shape, seed=seed)
    exact = subject.forward(params, jax.tree.map(lambda a: np.asarray(a, np.float32), low), call)
    worst = max(worst, same(out, exact, "bfloat16 against float32", tolerance=BFLOAT16, shape=shape, seed=seed))
  return f"error {worst:.0e} <= {BFLOAT16:.0e}"


def extremes(subject: Subject) -> str:
  """Logits of ±1e4 give finite outputs and gradients; so does a single token."""
  for shape, sizes in ((subject.shape(), (1.0, (LOGIT * 3**0.5) ** 0.5)), (subject.shape(T=1, S=1), (100.0,))):
    params, call = subject.params(shape.dims()), Call(subject.mask(_padding(subject, shape)))
    for seed, size in enumerate(sizes):
      inputs = subject.inputs(shape, seed)
      q, k = (None if array is None else array * size for array in inputs[:2])
      inputs = inputs._replace(q=q, k=k)
      out = jax.eval_shape(subject.eager, params, inputs, call)
      _require_finite("output", subject.forward(params, inputs, call), f"at q and k of size {size:.0f}", shape)
      if shape.T > 1 or not subject.quick:
        grads = subject.gradient(params, inputs, call, np.ones(out.shape, np.float32))[1]
        _require_finite("gradient", grads, f"at q and k of size {size:.0f}", shape)
  return f"logits to {LOGIT:g}, lengths 5 and 1"


def _require_finite(what: str, tree: Any, where: str, shape: Shape) -> None:
  if not all(np.all(np.isfinite(np.asarray(leaf))) for leaf in jax.tree.leaves(tree)):
    raise Refuted(f"the {what} is not finite {where}", shape=shape)


def compiled(subject: Subject) -> str:
  """Compiled equals eager."""
  shape, call = subject.shape(), Call(subject.mask())
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  error = same(
    subject.forward(params, inputs, call),
    subject.eager(params, jax.tree.map(jnp.asarray, inputs), call),
    "compiled against eager",
    shape=shape,
    seed=0,
  )
  return f"largest error {error:.0e}"


def repeatable(subject: Subject) -> str:
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


def _padding(subject: Subject, shape: Shape) -> Mask:
  """Padding that hides every key of the last example, where padding is honoured."""
  valid = np.repeat(np.arange(shape.B)[:, None] < shape.B - 1, shape.S, axis=1)
  return Mask(kv_valid=jnp.asarray(valid)) if "kv_valid" in subject.claims.masks else Mask()


PROOFS = {
  "bfloat16 is near float32": bfloat16,
  "finite under extremes": extremes,
  "compiled equals eager": compiled,
  "the same call twice": repeatable,
}
