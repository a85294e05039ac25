"""The programs of a variant that are timed: forward, forward and backward, and one step of decoding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.attention import sharded
from attention_lab.attention.base import Attention, AttentionOutput, Call, Params
from attention_lab.benchmark.program import TOKENS, Arrays, Case, Program, attention_flops, build
from attention_lab.timing import Sample


def compile_variant(variant: Attention, case: Case) -> Program:
  """The program of `variant` at `case`; a kernel's FLOPs are by formula. Raises Unsupported for what it does not do."""
  params = variant.init(jax.random.key(0), case.dims)
  make = {"forward": _forward, "train": _train, "decode": _decode}[case.mode]
  program = make(variant, params, case)
  if program.flops is None and getattr(variant, "implementation", "xla") != "xla":
    return dataclasses.replace(program, flops=attention_flops(case), flops_from="formula")
  return program


def _attend(variant: Attention, params: Params, inputs: Arrays, case: Case) -> AttentionOutput:
  q, k, v = (inputs.get(name) for name in "qkv")
  return sharded.attend(variant, params, q, k, v, Call(case.mask, x=inputs["x"]))


def _read(variant: Attention, arrays: Arrays) -> Arrays:
  """The inputs that a variant takes: its projections, and the layer's input, which it may decline."""
  return {name: array for name, array in arrays.items() if name in variant.projections or name == "x"}


def _forward(variant: Attention, params: Params, case: Case) -> Program:
  def forward(params: Params, inputs: Arrays) -> jax.Array:
    return _attend(variant, params, inputs, case).out

  executable, program = build(forward, params, _read(variant, case.shapes()))

  def start(arrays: Arrays) -> Sample:
    inputs = _read(variant, arrays)
    return Sample(lambda: jax.block_until_ready(executable(params, inputs)))

  return dataclasses.replace(program, start=start)


def _train(variant: Attention, params: Params, case: Case) -> Program:
  """Forward and backward; the loss is the inner product of the output with a fixed array, plus the variant's losses."""
  leaves, tree = jax.tree_util.tree_flatten_with_path(params)
  learned = [_is_learned(path, leaf) for path, leaf in leaves]
  trained, rest = (
    [leaf for (_, leaf), is_trained in zip(leaves, learned, strict=True) if is_trained is s] for s in (True, False)
  )

  def loss(trained: list, inputs: Arrays, rest: list, fixed: Arrays, cotangent: jax.Array) -> jax.Array:
    sides = {True: iter(trained), False: iter(rest)}
    full = jax.tree.unflatten(tree, [next(sides[is_trained]) for is_trained in learned])
    attended = _attend(variant, full, {**fixed, **inputs}, case)
    return jnp.vdot(attended.out.astype(jnp.float32), cotangent) + sum(attended.losses.values())

  inputs_read = _read(variant, case.shapes())
  out = jax.eval_shape(lambda p, i: _attend(variant, p, i, case).out, params, inputs_read)
  wanted = [name for name in inputs_read if name != "x" or _reads_layer_input(variant, params, inputs_read, case)]
  inputs, fixed = ({n: a for n, a in inputs_read.items() if (n in wanted) is side} for side in (True, False))
  cotangent = jax.ShapeDtypeStruct(out.shape, jnp.float32)
  executable, program = build(jax.value_and_grad(loss, argnums=(0, 1)), trained, inputs, rest, fixed, cotangent)

  def start(arrays: Arrays) -> Sample:
    weights = jax.random.normal(jax.random.key(2), cotangent.shape, jnp.float32)
    varied, constant = ({name: arrays[name] for name in part} for part in (inputs, fixed))
    return Sample(lambda: jax.block_until_ready(executable(trained, varied, rest, constant, weights)))

  return dataclasses.replace(program, start=start)


def _is_learned(path: tuple, leaf: Any) -> bool:
  fixed = any(getattr(part, "key", None) == "fixed" for part in path)
  return not fixed and bool(jnp.issubdtype(leaf.dtype, jnp.inexact))


def _reads_layer_input(variant: Attention, params: Params, inputs: Arrays, case: Case) -> bool:
  """True if the output depends on x; a gradient of zeros would be work that no model does."""
  rest = {name: array for name, array in inputs.items() if name != "x"}
  closed = jax.make_jaxpr(lambda rest, x: _attend(variant, params, {**rest, "x": x}, case).out)(rest, inputs["x"])
  x = closed.jaxpr.invars[-1]
  return any(variable is x for equation in closed.jaxpr.eqns for variable in equation.invars)


def _decode(variant: Attention, params: Params, case: Case) -> Program:
  """Decoding: one token through `extend`, its state donated, after a prefix of the case's length."""

  def extend(params: Params, state: Any, inputs: Arrays) -> tuple[Any, jax.Array]:
    q, k, v = (inputs.get(name) for name in "qkv")
    return sharded.extend(variant, params, state, q, k, v, x=inputs["x"])

  empty = jax.eval_shape(lambda: variant.init_state(case.batch, case.dims, jnp.dtype(case.dtype)))
  prefill, prefix = build(extend, params, empty, _read(variant, case.shapes()), donate=(1,))
  step, program = build(extend, params, empty, _read(variant, case.shapes(1)), donate=(1,))
  state_bytes = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(empty))

  def start(arrays: Arrays) -> Sample:
    inputs = _read(variant, arrays)
    token = jax.tree.map(lambda array: array[:, :1], inputs)
    fresh = variant.init_state(case.batch, case.dims, jnp.dtype(case.dtype))
    prefilled, _ = prefill(params, jax.tree.map(jnp.copy, fresh), inputs)
    current: dict[str, Any] = {}

    def reset() -> None:
      current["state"] = jax.block_until_ready(jax.tree.map(jnp.copy, prefilled))

    def run() -> jax.Array:
      for _ in range(TOKENS):
        current["state"], out = step(params, current["state"], token)
        jax.block_until_ready(out)
      return out

    return Sample(run, TOKENS, reset)

  needs = max(prefix.needs or 0, (program.needs or 0) + state_bytes)
  return dataclasses.replace(program, start=start, needs=needs)
