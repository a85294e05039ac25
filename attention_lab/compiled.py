"""The cost of a program, read from the program: FLOPs from its jaxpr, bytes and collectives from its compiled form.

XLA's own `cost_analysis()` counts the body of a loop once, whatever its length; here a scan's body counts as often as
it runs.
"""

import collections
import hashlib
import math
import re
from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core

DIGITS = 16  # hexadecimal digits of a fingerprint
_FREE = frozenset(  # primitives that do no arithmetic
  """broadcast_in_dim reshape transpose squeeze expand_dims slice dynamic_slice dynamic_update_slice concatenate pad
  gather iota copy convert_element_type bitcast_convert_type stop_gradient rev split random_bits random_wrap
  random_unwrap random_fold_in random_split random_seed device_put sharding_constraint optimization_barrier
  pvary""".split()
)
# Beginnings of the names of kernels, and the collective operations by their names in HLO.
_KERNELS = ("dot_product_attention_", "pallas_call", "core_map", "ffi_call", "custom_partitioning", "triton_kernel")
_COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "collective-permute", "all-to-all")


def flops(function: Callable[..., Any], *args: Any) -> int:
  """Floating-point operations of `function(*args)`: 2 for a multiply-add, 1 for any other arithmetic on an element.

  Args:
    function: what is counted; it is traced, not run.
    *args: arrays or `jax.ShapeDtypeStruct`.

  Returns:
    FLOPs, the body of a scan as often as it runs, those of all devices under `shard_map`.

  Raises:
    ValueError: a loop whose length is not known, or a kernel, which a jaxpr does not show the inside of.
  """
  return count(jax.make_jaxpr(function)(*args).jaxpr)


def count(jaxpr: core.Jaxpr) -> int:
  """FLOPs of a jaxpr, loops unrolled."""
  return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
  name, params = equation.primitive.name, equation.params
  if name == "dot_general":
    return _dot(equation)
  if name == "conv_general_dilated":
    return _convolution(equation)
  if name == "fft":
    size = math.prod(params["fft_lengths"])
    return int(5 * math.prod(equation.outvars[0].aval.shape) * math.log2(max(size, 2)))
  if name == "scan":
    return params["length"] * count(params["jaxpr"].jaxpr)
  if name == "while":
    raise ValueError(
      "FLOPs of a loop of unknown length cannot be counted: use lax.scan, or fori_loop with static bounds"
    )
  if name.startswith(_KERNELS):
    raise ValueError(f"FLOPs inside the kernel {name} cannot be counted: use implementation='xla', or a formula")
  if name == "cond":
    return max(count(branch.jaxpr) for branch in params["branches"])
  inner = [value for key, value in params.items() if key in ("jaxpr", "call_jaxpr", "fun_jaxpr")]
  if inner:
    devices = math.prod(params["mesh"].shape.values()) if name == "shard_map" else 1
    return devices * count(getattr(inner[0], "jaxpr", inner[0]))
  if name in _FREE:
    return 0
  sizes = [math.prod(v.aval.shape) for v in (*equation.invars, *equation.outvars) if hasattr(v.aval, "shape")]
  return max(sizes, default=0)


def _dot(equation: Any) -> int:
  (contracted, _), _ = equation.params["dimension_numbers"]
  depth = math.prod(equation.invars[0].aval.shape[axis] for axis in contracted)
  return 2 * depth * math.prod(equation.outvars[0].aval.shape)


def _convolution(equation: Any) -> int:
  kernel, features = equation.invars[1].aval.shape, equation.params["dimension_numbers"].rhs_spec[0]
  return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // kernel[features]


def memory(compiled: Any) -> dict[str, int]:
  """Bytes of a compiled program: arguments, outputs, temporaries, and the peak of all together."""
  stats = compiled.memory_analysis()
  sizes = {
    "arguments": stats.argument_size_in_bytes,
    "outputs": stats.output_size_in_bytes,
    "temporaries": stats.temp_size_in_bytes,
  }
  return sizes | {"peak": sum(sizes.values()) - stats.alias_size_in_bytes}


def collectives(compiled: Any) -> dict[str, int]:
  """The number of collective operations of each kind in a compiled program; those in a loop count once."""
  names = re.findall(r"= \S+ (" + "|".join(_COLLECTIVES) + r")(?:-start)?\(", compiled.as_text())
  return dict(collections.Counter(names))


def fingerprint(lowered: Any) -> str:
  """Hex digits of the SHA-256 of a lowered program's StableHLO, without places in source files.

  The same in any process, for the same program and shapes on the same kind and number of devices and the same versions.
  """
  text = lowered.as_text("stablehlo", debug_info=False)
  return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
