"""Functions from outside as variants: JAX, NumPy or torch, under the same proofs as a class.

    finding = battery.prove("honours causal", Foreign("jax.nn.dot_product_attention", "supports_gqa=True"))

A function `f(q, k, v, mask=None)` takes queries `B T N H`, keys `B S K H`, values `B S K V` and returns `B T N V`; its
mask is bool `B N T S`, True where a pair is readable. What else it takes is seen from its signature: `bias` `B N T S`,
or, of a function without a mask, `causal` or `is_causal`. One that JAX cannot trace runs on the host, on NumPy arrays
in float32, and is asked for no gradient.
"""

import ast
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention import spec
from attention_lab.attention.base import EVERY_MASK, Attention, Call, Claims, refuse_positions

CAUSAL_FLAGS = ("causal", "is_causal")  # names of an argument that makes a function without a mask causal
# Proofs of what the adapter does, and not the function.
ADAPTERS = {
  "nothing readable gives zeros": "the adapter writes these zeros, and lets such a row read what others read",
  "refuses undeclared demands": "the adapter refuses them",
  "state in T": "the state is a cache of the adapter's",
  "state has the batch first": "the state is a cache of the adapter's",
  "state never overflows silently": "the state is a cache of the adapter's",
  "every hyper-parameter acts": "a function has no hyper-parameters",
  "parameters keep the rules": "a function has no parameters",
}
HOST = {
  "bfloat16 is near float32": "its numbers are float32 on the host",
  "gradient equals differences in float64": "its gradient cannot be taken on the host",
  "a bias of -inf hides keys": "its gradient cannot be taken on the host",
  "compiled equals eager": "it is not compiled on the host",
  "sharded equals unsharded": "it runs on the host, which no mesh splits",
  "sharded extend equals unsharded": "it runs on the host, which no mesh splits",
}
COSTS = {"time in T": "time_exponent", "memory in T": "memory_exponent"}


class Adapter(NamedTuple):
  """A loaded function: how it is called, what it claims, and which claims somebody has stated."""

  function: Callable[..., Any]
  claims: Claims
  stated: frozenset[str]
  arguments: frozenset[str]  # of its arguments those that the adapter fills: mask, bias, causal or is_causal
  on_host: bool  # JAX cannot trace it
  equal_widths: bool  # it wants values as wide as keys


@dataclasses.dataclass(frozen=True)
class Foreign(Attention):
  """A function from outside under the interface of a variant.

  Raises:
    ValueError: in one line, for a function that cannot be loaded or called, and for claims that there are not.
  """

  function: str  # my_pkg.my_file:f; a colon becomes a dot
  claimed: str  # claims as in "supports_gqa=True, exactness='other'", beside those of its attribute `claims`

  def __post_init__(self):
    object.__setattr__(self, "function", self.function.replace(":", "."))
    _adapter(self.function, self.claimed)

  @property
  def adapter(self) -> Adapter:
    """The loaded function."""
    return _adapter(self.function, self.claimed)

  @property
  def differentiable(self) -> bool:
    """Whether JAX can differentiate it."""
    return not self.adapter.on_host

  @property
  def unasked(self) -> Mapping[str, str]:
    """Claims of the battery that the function cannot be asked for, with the reason."""
    costs = {
      claim: "it runs outside of JAX" if self.adapter.on_host else f"no {name} is stated"
      for claim, name in COSTS.items()
      if self.adapter.on_host or name not in self.adapter.stated
    }
    return ADAPTERS | costs | (HOST if self.adapter.on_host else {})

  def claims(self) -> Claims:
    return self.adapter.claims

  def pattern(self, params: Any, i: Any, j: Any) -> Any:
    declared = getattr(self.adapter.function, "pattern", None)
    return True if declared is None else declared(i, j)

  def attend(self, params: Any, q: Any, k: Any, v: Any, call: Call) -> Any:
    adapter, (B, T, N, _), S = self.adapter, q.shape, k.shape[1]
    arguments: dict[str, Any] = {} if call.bias is None else {"bias": jnp.broadcast_to(call.bias, (B, N, T, S))}
    if "mask" not in adapter.arguments:
      refuse_positions(self, call)
      arguments |= dict.fromkeys(adapter.arguments & set(CAUSAL_FLAGS), call.mask.causal)
      return _run(adapter, q, k, v, arguments)
    if not call.mask.names() and call.positions.known:
      return _run(adapter, q, k, v, arguments)
    readable = jnp.broadcast_to(call.mask.dense(T, S, call.positions), (B, N, T, S))
    reads = readable.any(axis=-1, keepdims=True)
    others = readable.any(axis=2, keepdims=True)  # a row that reads nothing gets the keys that the others read
    mask = jnp.where(reads, readable, others | ~others.any(axis=-1, keepdims=True))
    out = _run(adapter, q, k, v, arguments | {"mask": mask})
    return jnp.where(jnp.swapaxes(reads, 1, 2), out, 0.0)


@functools.lru_cache(maxsize=16)
def _adapter(name: str, claimed: str) -> Adapter:
  """The adapter of the function `my_pkg.my_file.f` with the claims that are stated of it."""
  module, _, attribute = name.rpartition(".")
  function = spec.load(f"{module}:{attribute}", "the function")
  if not callable(function):
    raise ValueError(f"{module}:{attribute} is no function f(q, k, v, mask=None), but {type(function).__name__}")
  taken = set(inspect.signature(function).parameters) & {"mask", "bias", *CAUSAL_FLAGS}
  arguments = frozenset(taken - set(CAUSAL_FLAGS) if "mask" in taken else taken)
  stated = dict(getattr(function, "claims", {})) | _stated(claimed)
  unknown = sorted(set(stated) - set(Claims.__dataclass_fields__))
  if unknown:
    raise ValueError(
      f"{module}:{attribute} claims {', '.join(unknown)}; there are {', '.join(Claims.__dataclass_fields__)}"
    )
  masks = EVERY_MASK if "mask" in arguments else frozenset({"causal"} if arguments & set(CAUSAL_FLAGS) else ())
  derived: dict[str, Any] = {
    "masks": masks,
    "bias": "bias" in arguments,
    "decode": "mask" in arguments,
    "supports_gqa": False,
  }
  claims = Claims(**(derived | stated | {"masks": frozenset(stated.get("masks", masks))}))
  on_host, equal_widths = _manner(name, function)
  return Adapter(function, claims, frozenset(stated), arguments, on_host, equal_widths)


def _stated(claimed: str) -> dict[str, Any]:
  """Claims as keyword arguments with literal values."""
  try:
    call: Any = ast.parse(f"Claims({claimed})", mode="eval").body
    stated = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in call.keywords}
    well_formed = not call.args
  except (AttributeError, SyntaxError, ValueError):
    well_formed = False
  if not well_formed:
    raise ValueError(f"claims are written as in \"supports_gqa=True, masks=('causal',)\", not as {claimed!r}")
  return stated


def _manner(name: str, function: Callable[..., Any]) -> tuple[bool, bool]:
  """(whether it runs on the host, whether values must be as wide as keys), as the first call that succeeds has it."""
  errors = []
  for on_host in (False, True):
    for equal_widths in (False, True):
      q = np.linspace(-1.0, 1.0, 2 * 3 * 2 * 4, dtype=np.float32).reshape(2, 3, 2, 4)
      v = q if equal_widths else q[..., :3]
      try:
        out = function(q, q, v) if on_host else jax.eval_shape(function, q, q, v)
      except Exception as error:  # a function of somebody's may raise anything
        errors.append(f"{type(error).__name__}: {' '.join(str(error).split())[:150]}")
        continue
      if np.shape(out) != v.shape:
        raise ValueError(
          f"{name} returns the shape {np.shape(out)} for q {q.shape}: it must return B T N V = {v.shape}"
        )
      return on_host, equal_widths
  raise ValueError(f"{name} cannot be called as f(q, k, v): traced, {errors[0]}; on NumPy arrays, {errors[2]}")


def _run(adapter: Adapter, q: Any, k: Any, v: Any, arguments: dict[str, Any]) -> Any:
  """The function's output; where it wants values as wide as keys they come in slabs, the last one filled with zeros."""
  run = functools.partial(_on_host, adapter.function) if adapter.on_host else adapter.function
  if not adapter.equal_widths or q.shape[3] == v.shape[3]:
    return run(q, k, v, **arguments)
  width, V = q.shape[3], v.shape[3]
  filled = jnp.pad(v, ((0, 0), (0, 0), (0, 0), (0, -V % width)))
  slabs = [run(q, k, filled[..., start : start + width], **arguments) for start in range(0, V, width)]
  return jnp.concatenate(slabs, axis=-1)[..., :V]


def _on_host(function: Callable[..., Any], q: Any, k: Any, v: Any, **arguments: Any) -> Any:
  """The output of a function of NumPy arrays, in float32."""
  flags = {name: value for name, value in arguments.items() if isinstance(value, bool)}
  arrays = {name: value for name, value in arguments.items() if name not in flags}

  def call(q: Any, k: Any, v: Any, arrays: dict[str, Any]) -> np.ndarray:
    q, k, v = (np.array(array, np.float32) for array in (q, k, v))
    out = function(q, k, v, **flags, **{name: np.array(array) for name, array in arrays.items()})
    return np.asarray(out, np.float32)

  shape = jax.ShapeDtypeStruct((*q.shape[:3], v.shape[3]), jnp.float32)
  return jax.pure_callback(call, shape, q, k, v, arrays, vmap_method="sequential")
