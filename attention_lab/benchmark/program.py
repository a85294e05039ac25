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

TOKENS = 16  # tokens that decoding appends in one sample, one after the other

Arrays = dict[str, Any]


class Case(NamedTuple):
  """One point of the benchmark: mode, length and sizes."""

  mode: str  # forward, train or decode
  length: int  # T = S; in decoding, tokens that are there before
  batch: int
  heads: int
  kv_heads: int
  head_width: int
  dtype: str
  causal: bool
  window: int = 0  # W of the mask of forward and train; 0 = none

  @property
  def mask(self) -> Mask:
    """The mask of forward and train."""
    return Mask(causal=self.causal, window=self.window or None)

  @property
  def dims(self) -> Dims:
    """Sizes for the parameters of a variant; decoding has room for a sample's tokens."""
    room = TOKENS if self.mode == "decode" else 0
    H = self.head_width
    return Dims(self.heads * H, self.heads, self.kv_heads, H, H, self.length + room)

  def shapes(self, length: int = 0) -> Arrays:
    """The shapes of q, k, v and the layer's input x, of `length` positions (0 = the case's)."""
    B, T, H = self.batch, length or self.length, self.head_width
    rows = {"q": (self.heads, H), "k": (self.kv_heads, H), "v": (self.kv_heads, H), "x": (self.heads * H,)}
    return {name: jax.ShapeDtypeStruct((B, T, *rest), jnp.dtype(self.dtype)) for name, rest in rows.items()}

  def inputs(self, seed: int = 0) -> Arrays:
    """Normal values of the shapes of q, k, v and x."""
    shapes = self.shapes()
    keys = jax.random.split(jax.random.key(seed), len(shapes))
    return {
      name: jax.random.normal(key, shape.shape, shape.dtype)
      for key, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


@dataclasses.dataclass
class Program:
  """A compiled program and its costs; None where they cannot be known."""

  start: Callable[[Arrays], Sample]  # allocates and, in decoding, reads the prefix
  compile_seconds: float | None = None
  cached: bool = False  # it was read from the compile cache: its seconds are not those of compiling
  flops: int | None = None  # FLOPs of one call
  flops_from: str = ""  # 'program', or 'formula' for what is not counted from a jaxpr
  memory: dict[str, int] | None = None  # bytes, as `compiled.memory` gives them
  needs: int | None = None  # bytes that running it takes at most
  text: str | None = None  # the compiler's output


def build(function: Callable, *args: Any, donate: tuple[int, ...] = ()) -> tuple[Any, Program]:
  """The executable of `function` for arguments or their shapes, and its costs, with nothing to start."""
  begun = time.perf_counter()
  traced = jax.jit(function, donate_argnums=donate).trace(*args)
  with compile_cache.watched() as traffic:
    executable = traced.lower().compile()
  seconds = time.perf_counter() - begun
  flops = count_flops(traced)
  memory = programs.memory(executable)
  program = Program(lambda _: Sample(lambda: None), seconds, False, flops, "program", memory, memory["peak"])
  return executable, dataclasses.replace(program, text=executable.as_text(), cached=traffic.hits > 0)


def count_flops(traced: Any) -> int | None:
  """The FLOPs of a traced function; None for one with a loop of unknown length."""
  try:
    return programs.count(traced.jaxpr.jaxpr)
  except ValueError:
    return None


def matmul(size: int, dtype: str) -> tuple[Program, Arrays]:
  """A square matrix product, accumulated in float32, and its operands; its speed stands for the machine's peak."""

  def product(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)

  keys = jax.random.split(jax.random.key(1))
  a, b = (jax.random.normal(key, (size, size), jnp.dtype(dtype)) for key in keys)
  executable, program = build(product, a, b)
  program.start = lambda arrays: Sample(lambda: jax.block_until_ready(executable(arrays["a"], arrays["b"])))
  return program, {"a": a, "b": b}


def attention_flops(case: Case) -> int:
  """The FLOPs of exact attention by formula: 4·B·N·T·S·H, 3.5 times that with a backward pass, of the pairs not masked.

  The backward pass computes the logits again, as every engine without a T × S buffer does: five products for two.
  """
  T, W = case.length, min(case.window or case.length, case.length)
  pairs = T * T - (T - W) ** 2 if case.window else T * T
  pairs = T if case.mode == "decode" else pairs // 2 if case.causal else pairs
  forward = 4 * case.batch * case.heads * pairs * case.head_width
  return forward * 7 // 2 if case.mode == "train" else forward


def refuse(name: str, reason: str) -> Unsupported:
  """The error by which a peer is refused."""
  return Unsupported(f"{name} {reason}")
