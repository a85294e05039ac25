"""Growth with T, read from the program and never from a clock: FLOPs, temporaries, bytes of decoding state."""

import functools
import math

import jax
import jax.numpy as jnp

from attention_lab import compiled
from attention_lab.attention.base import Call, Dims
from attention_lab.certify.finding import NOT_RUN, Refuted, Undecided, require
from attention_lab.certify.under_test import WIDTH, Inputs, Shape, VariantUnderTest

SLACK = 0.3  # largest difference of two exponents: T·log T counts as T, and constants fade slowly
TIMES = (4096, 8192)  # lengths T at which FLOPs are counted
MEMORIES = ((1024, 4096), (4096, 8192))  # lengths T at which temporaries are measured; the second if the first fails
STATES = (256, 1024)  # longest sequences for which a decoding state is made


def time(subject: VariantUnderTest) -> str:
  """FLOPs grow as claims.time says, no faster and no slower."""
  try:
    counts = [compiled.flops(*_program(subject, length)) for length in TIMES]
  except ValueError as error:
    raise Undecided(NOT_RUN, str(error)) from error
  exponent = _exponent(counts, TIMES) if any(counts) else 0.0
  claimed = subject.claims.time_exponent
  if abs(exponent - claimed) > SLACK and not (claimed == 1 and exponent < 1):
    raise Refuted(
      f"FLOPs grow as T^{exponent:.2f}, not T^{claimed}: claim time_exponent={round(exponent)}",
      shape=f"T {TIMES[0]} and {TIMES[1]}",
    )
  return f"T^{exponent:.2f}, from {counts[0]:,} FLOPs at T = {TIMES[0]}"


def memory(subject: VariantUnderTest) -> str:
  """Temporaries of the compiled program (in full: of its gradient) grow no faster than claims.memory says."""
  for lengths in MEMORIES:
    sizes = [max(_temporaries(subject, length), 1) for length in lengths]
    exponent = _exponent(sizes, lengths)
    if exponent <= subject.claims.memory_exponent + SLACK:
      return f"T^{exponent:.2f}, {sizes[0]:,} bytes at T = {lengths[0]}"
  raise Refuted(
    f"temporaries grow as T^{exponent:.2f}, not T^{subject.claims.memory_exponent}: "
    f"compute in blocks, or claim memory_exponent={max(round(exponent), 0)}",
    shape=f"T {lengths[0]} and {lengths[1]}",
  )


def _temporaries(subject: VariantUnderTest, length: int) -> int:
  """Bytes of temporaries of a compiled call, in a full battery of its gradient."""
  run, *args = _program(subject, length)
  if not subject.quick and subject.differentiable:
    run = functools.partial(_gradient, run)
  return compiled.memory(subject.compiled(run).lower(*args).compile())["temporaries"]


def state(subject: VariantUnderTest) -> str:
  """Bytes of decoding state grow with the longest sequence as claims.state says."""
  require(subject.claims.decode, "cannot decode step by step")
  sizes = []
  for length in STATES:
    dims = Dims(WIDTH, 4, 4, 3, 2, length)
    tree = jax.eval_shape(lambda dims=dims: subject.variant.init_state(1, dims, jnp.float32))
    sizes.append(sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree)))
  exponent = _exponent([max(size, 1) for size in sizes], STATES)
  if abs(exponent - subject.claims.state_exponent) > SLACK:
    hint = f"claim state_exponent={round(exponent)}"
    raise Refuted(
      f"the state grows as T^{exponent:.2f}, not T^{subject.claims.state_exponent}: {hint}",
      shape=f"max_len {STATES[0]} and {STATES[1]}",
    )
  return f"T^{exponent:.2f}, {sizes[0]:,} bytes an example at {STATES[0]}"


def _exponent(values: list[int], lengths: tuple[int, int]) -> float:
  return math.log(values[1] / values[0]) / math.log(lengths[1] / lengths[0])


def _program(subject: VariantUnderTest, length: int) -> tuple:
  """A call of one example, and abstract arguments for it: nothing is computed."""
  shape: Shape = subject.shape(B=1, T=length, S=length, N=2, K=2, H=8, V=8)
  abstract = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
  arrays = {"q": abstract((1, length, 2, 8)), "k": abstract((1, length, 2, 8)), "v": abstract((1, length, 2, 8))}
  projected = {name: array if name in subject.variant.projections else None for name, array in arrays.items()}
  inputs = Inputs(**projected, x=abstract((1, length, WIDTH)))
  params = jax.eval_shape(lambda: subject.variant.init(jax.random.key(0), shape.dims()))
  call = Call(subject.mask())
  return lambda params, inputs: subject.eager(params, inputs, call), params, inputs


def _gradient(run, params, inputs):
  return jax.grad(lambda inputs: jnp.sum(run(params, inputs).astype(jnp.float32) ** 2))(inputs)


PROOFS = {"time in T": time, "memory in T": memory, "state in T": state}
