"""Peers that are JAX functions: `jax.nn.dot_product_attention`, by XLA and by cuDNN, and tokamax."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.benchmark.program import TOKENS, Arrays, Case, Program, attention_flops, build, refuse
from attention_lab.timing import Sample

QKV = ("q", "k", "v")


def compile_jax(name: str, case: Case) -> Program:
  """`jax_dpa`, `jax_cudnn` or `tokamax` at `case`; raises Unsupported for what they do not do."""
  attend = _attention(name)
  if name == "tokamax" and case.window:
    raise refuse(name, "is not measured under a window; leave --window out")
  program = _decode(name, attend, case) if case.mode == "decode" else _whole(attend, case)
  if name != "jax_dpa":
    program = dataclasses.replace(program, flops=attention_flops(case), flops_from="formula")
  return program


def _attention(name: str) -> Callable[..., jax.Array]:
  if name == "tokamax":
    import tokamax

    return tokamax.dot_product_attention

  def attend(q: Any, k: Any, v: Any, **demands: Any) -> jax.Array:
    return jax.nn.dot_product_attention(q, k, v, implementation="cudnn" if name == "jax_cudnn" else "xla", **demands)

  return attend


def _whole(attend: Callable, case: Case) -> Program:
  shapes = {name: shape for name, shape in case.shapes().items() if name in QKV}

  def forward(inputs: Arrays) -> jax.Array:
    window = {"local_window_size": (case.window - 1, 0 if case.causal else case.window - 1)} if case.window else {}
    return attend(*(inputs[name] for name in QKV), is_causal=case.causal, **window)

  def loss(inputs: Arrays, cotangent: jax.Array) -> jax.Array:
    return jnp.vdot(forward(inputs).astype(jnp.float32), cotangent)

  cotangent = jax.ShapeDtypeStruct(shapes["q"].shape, jnp.float32)
  train = case.mode == "train"
  executable, program = build(jax.value_and_grad(loss), shapes, cotangent) if train else build(forward, shapes)

  def start(arrays: Arrays) -> Sample:
    inputs = {name: arrays[name] for name in QKV}
    rest = (jax.random.normal(jax.random.key(2), cotangent.shape, jnp.float32),) if train else ()
    return Sample(lambda: jax.block_until_ready(executable(inputs, *rest)))

  return dataclasses.replace(program, start=start)


def _decode(name: str, attend: Callable, case: Case) -> Program:
  """A cache of keys and values, written in place, its unused slots masked by length."""
  if name == "tokamax":
    raise refuse(name, "is not measured in decoding: it takes no lengths of a cache; leave --mode=decode out")
  room = case.length + TOKENS
  cache = {letter: case.shapes(room)[letter] for letter in "kv"}
  token = {letter: case.shapes(1)[letter] for letter in QKV}

  def step(cache: Arrays, length: jax.Array, token: Arrays) -> tuple[Arrays, jax.Array]:
    cache = {
      letter: jax.lax.dynamic_update_slice_in_dim(cache[letter], token[letter], length, axis=1) for letter in "kv"
    }
    lengths = jnp.full((case.batch,), length + 1, jnp.int32)
    return cache, attend(token["q"], cache["k"], cache["v"], key_value_seq_lengths=lengths)

  executable, program = build(step, cache, jax.ShapeDtypeStruct((), jnp.int32), token, donate=(0,))

  def start(arrays: Arrays) -> Sample:
    held = {letter: jnp.pad(arrays[letter], ((0, 0), (0, TOKENS), (0, 0), (0, 0))) for letter in "kv"}
    first_token = {letter: arrays[letter][:, :1] for letter in QKV}
    lengths = [jnp.asarray(case.length + i, jnp.int32) for i in range(TOKENS)]
    current: dict[str, Any] = {}

    def reset() -> None:
      current["cache"] = jax.block_until_ready(jax.tree.map(jnp.copy, held))

    def run() -> jax.Array:
      for length in lengths:
        current["cache"], out = executable(current["cache"], length, first_token)
        jax.block_until_ready(out)
      return out

    return Sample(run, TOKENS, reset)

  return dataclasses.replace(program, start=start)
