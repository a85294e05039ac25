"""Many devices: what `sharded` computes on eight of them is what one computes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention import sharded
from attention_lab.attention.base import Call
from attention_lab.attention.mask import Mask
from attention_lab.certify import random_calls
from attention_lab.certify.finding import NOT_RUN, require, same
from attention_lab.certify.under_test import Inputs, VariantUnderTest

DEVICES = 8
NO_KEYS = ", without a key: it raises where each example has one, as on a mesh"


def attend(subject: VariantUnderTest) -> str:
  """One call, split over examples and heads; in the full battery its gradient too."""
  mesh = _mesh()
  shape = subject.shape(B=4, T=5, S=5, N=4, K=2)
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  call = random_calls.call(subject, shape, ("kv_valid", "causal", "explicit", "bias"), seed=1)
  note = "" if not subject.claims.random or _takes_keys(subject, params, inputs, call) else NO_KEYS
  call = call._replace(key=jax.random.key(0) if subject.claims.random and not note else None)

  def run(mesh, params, inputs):
    q, k, v, x, y = inputs
    return sharded.attend(subject.variant, params, q, k, v, call._replace(x=x, y=y), mesh).out

  def loss(mesh, params, inputs):
    return jnp.sum(jnp.sin(run(mesh, params, inputs)))

  alone = subject.forward(params, inputs, call)
  many = subject.compiled(functools.partial(run, mesh))(params, inputs)
  same(many, alone, f"on {DEVICES} devices against one", shape=shape, seed=1)
  if subject.quick or not subject.differentiable:
    return f"forward on {dict(mesh.shape)}{note}"
  grads = [subject.compiled(jax.grad(functools.partial(loss, m), argnums=1))(params, inputs) for m in (mesh, None)]
  for many, alone in zip(*map(jax.tree.leaves, grads), strict=True):
    same(many, alone, f"gradient on {DEVICES} devices against one", tolerance=2e-5, shape=shape, seed=1)
  return f"forward and gradient on {dict(mesh.shape)}{note}"


def _takes_keys(subject: VariantUnderTest, params: Any, inputs: Inputs, call: Call) -> bool:
  """Whether the variant draws its bits with a key for each example, which a mesh needs; it may raise, not differ."""
  keys = jax.random.split(jax.random.key(0), len(inputs.x))
  try:
    jax.eval_shape(subject.eager, params, inputs, call._replace(key=keys))
  except (TypeError, ValueError):
    return False
  return True


def extend(subject: VariantUnderTest) -> str:
  """A prefill, split over examples."""
  require(subject.claims.decode, "cannot decode step by step")
  require(not subject.quick, "only in the full battery", NOT_RUN)
  mesh = _mesh()
  shape = subject.shape(B=4, T=5, S=5, N=4, K=2)
  params, inputs = subject.params(shape.dims()), subject.inputs(shape)
  lengths, mask = jnp.asarray(np.array([5, 2, 0, 4], np.int32)), Mask(causal=True)
  state = subject.variant.init_state(shape.B, shape.dims(), jnp.float32)

  def run(params, state, inputs):
    return sharded.extend(
      subject.variant, params, state, *inputs[:3], x=inputs.x, lengths=lengths, mask=mask, mesh=mesh
    )

  after, out = subject.compiled(run)(params, state, inputs)
  expected, alone = subject.extend(params, state, inputs, lengths, mask)
  real = np.arange(5) < np.asarray(lengths)[:, None]
  same(np.asarray(out)[real], np.asarray(alone)[real], f"extend on {DEVICES} devices against one", shape=shape)
  for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(expected), strict=True):
    same(a, b, f"state on {DEVICES} devices against one", shape=shape)
  return f"on {dict(mesh.shape)}"


def _mesh() -> jax.sharding.Mesh:
  require(jax.device_count() >= DEVICES, f"needs {DEVICES} devices and has {jax.device_count()}", NOT_RUN)
  axes = ("data", "fsdp", "tensor")
  kinds = (jax.sharding.AxisType.Auto,) * 3
  return jax.make_mesh((2, 2, 2), axes, axis_types=kinds, devices=jax.devices()[:DEVICES])


PROOFS = {"sharded equals unsharded": attend, "sharded extend equals unsharded": extend}
