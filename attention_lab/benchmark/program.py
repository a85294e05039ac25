"""A program to be measured: what it costs, known once compiled, and how to run it."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from attention_lab import compile_cache
from attention_lab import compiled as programs
from attention_lab.attention.base import Dims, Unsupported
from attention_lab.attention.mask import Mask
from attention_lab.timing import Sample

TOKENS = 16  # that decoding appends in one sample, one after the other

Arrays = dict[str, Any]


class Case(NamedTuple):
  """One point of the benchmark."""

  mode: str  # forward, train or decode
  length: int  # T = S; in decoding, tokens that are there before
  batch: int
  heads: int
  kv_heads: int
  head_width: int
  dtype: str
  causal: bool
  window: int = 0  # of the mask of forward and train; 0 = none

  @property
  def mask(self) -> Mask:
    """Of forward and train."""
    return Mask(causal=self.causal, window=self.window or None)

  @property
  def dims(self) -> Dims:
    """Sizes for the parameters of a variant; decoding has room for a sample's tokens."""
    room = TOKENS if self.mode == "decode" else 0
    H = self.head_width
    return Dims(self.heads * H, self.heads, self.kv_heads, H, H, self.length + room)

  def shapes(self, length: int = 0) -> Arrays:
    """q, k, v and the layer's input x."""
    B, T, H = self.batch, length or self.length, self.head_width
    rows = {"q": (self.heads, H), "k": (self.kv_heads, H), "v": (self.kv_heads, H), "x": (self.heads * H,)}
    return {name: jax.ShapeDtypeStruct((B, T, *rest), jnp.dtype(self.dtype)) for name, rest in rows.items()}

  def inputs(self, seed: int = 0) -> Arrays:
    """Normal values of these shapes."""
    shapes = self.shapes()
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
      name: jax.random.normal(key, one.shape, one.dtype) for key, (name, one) in zip(keys, shapes.items(), strict=True)
    }


@dataclasses.dataclass
class Program:
  """Costs of a compiled program; None where they cannot be known."""

  start: Callable[[Arrays], Sample]  # allocates and, in decoding, reads the prefix
  compile_seconds: float | None = None
  cached: bool = False  # it was read from the compile cache: its seconds are not those of compiling
  flops: int | None = None  # of one call
  flops_from: str = ""  # 'program', or 'formula' for what is not counted from a jaxpr
  memory: dict[str, int] | None = None  # bytes, as `compiled.memory` gives them
  needs: int | None = None  # bytes that running it takes at most
  text: str | None = None  # the compiler's output


def build(function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> tuple[Any, Program]:
  """Compiles `function` for arguments or their shapes: (executable, its costs, with nothing to start)."""
  begun = time.perf_counter()
  traced = jax.jit(function, donate_argnums=donate).trace(*args)
  with compile_cache.watched() as traffic:
    executable = traced.lower().compile()
  seconds = time.perf_counter() - begun
  try:
    flops = programs.count(traced.jaxpr.jaxpr)
  except ValueError:
    flops = None
  memory = programs.memory(executable)
  program = Program(lambda _: Sample(lambda: None), seconds, False, flops, "program", memory, memory["peak"])
  return executable, dataclasses.replace(program, text=executable.as_text(), cached=traffic.hits > 0)


def matmul(size: int, dtype: str) -> tuple[Program, Arrays]:
  """A square matrix product, accumulated in float32, and its operands: the peak that shares are of."""

  def product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)

  keys = jax.random.split(jax.random.key(1))
  a, b = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
  executable, program = build(product, a, b)
  program.start = lambda arrays: Sample(lambda: jax.block_until_ready(executable(arrays["a"], arrays["b"])))
  return program, {"a": a, "b": b}


def attention_flops(case: Case) -> int:
  """FLOPs of exact attention by formula: 4·B·N·T·S·H, 3.5 times that with a backward pass; of what a mask leaves.

  The backward pass computes the logits again, as every engine without a T × S buffer does: five products for two.
  """
  T, W = case.length, min(case.window or case.length, case.length)
  pairs = T * T - (T - W) ** 2 if case.window else T * T
  pairs = T if case.mode == "decode" else pairs // 2 if case.causal else pairs
  forward = 4 * case.batch * case.heads * pairs * case.head_width
  return forward * 7 // 2 if case.mode == "train" else forward


def refuse(name: str, what: str) -> Unsupported:
  """The refusal of a peer."""
  return Unsupported(f"{name} {what}")
