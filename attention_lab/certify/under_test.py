"""A variant under test: shapes, seeded inputs, randomised parameters, and programs that are compiled once."""

import dataclasses
import functools
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Call, Claims, Dims, Params, Unsupported
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions

WIDTH = 6  # D, the width of the layer's input
# Options of XLA under which a program takes a quarter of the time to compile.
FAST_COMPILE = {
  "xla_backend_optimization_level": 0,
  "xla_llvm_disable_expensive_passes": True,
  "xla_cpu_use_fusion_emitters": False,
  "xla_cpu_parallel_codegen_split_count": 1,
}
# The same options as XLA has them by itself.
FULL_COMPILE = {
  "xla_backend_optimization_level": 3,
  "xla_llvm_disable_expensive_passes": False,
  "xla_cpu_use_fusion_emitters": True,
  "xla_cpu_parallel_codegen_split_count": 32,
}


class Shape(NamedTuple):
  """Sizes of one call; `cross` means that the keys come from another sequence."""

  B: int = 2
  T: int = 5
  S: int = 5
  N: int = 4
  K: int = 4
  H: int = 3
  V: int = 2
  cross: bool = False
  room: int = 1  # the longest sequence that the parameters allow, in multiples of this one

  def __str__(self) -> str:
    sizes = " ".join(f"{letter}{size}" for letter, size in zip(self._fields[:7], self[:7], strict=True))
    return sizes + (" cross" if self.cross else "")

  def dims(self) -> Dims:
    """Dimensions for `init`."""
    return Dims(WIDTH, self.N, self.K, self.H, self.V, self.room * max(self.T, self.S))


class Inputs(NamedTuple):
  """Arrays of a call; None where the variant does not read the projection, and y is None in self-attention."""

  q: Any
  k: Any
  v: Any
  x: Any
  y: Any = None


@dataclasses.dataclass(frozen=True)
class VariantUnderTest:
  """One variant with its case (None for a third party's), how thorough to be, and its programs."""

  variant: Attention
  case: Any = None
  quick: bool = False
  forward: Any = dataclasses.field(init=False, compare=False)  # (params, inputs, call) -> out, compiled fast
  optimised: Any = dataclasses.field(init=False, compare=False)  # the same, with XLA's optimisation in a full battery
  gradient: Any = dataclasses.field(init=False, compare=False)  # (params, inputs, call, cotangent) -> (out, gradients)
  extend: Any = dataclasses.field(init=False, compare=False)  # (params, state, inputs, lengths, mask) -> (state, out)
  init: Any = dataclasses.field(init=False, compare=False)  # (key, dims) -> params
  known_params: dict[tuple[Dims, int], Params] = dataclasses.field(init=False, compare=False, default_factory=dict)

  def __post_init__(self):
    object.__setattr__(self, "forward", self.compiled(self.eager))
    object.__setattr__(self, "optimised", self.compiled(self.eager, optimised=True))
    object.__setattr__(self, "gradient", self.compiled(self._gradient))
    object.__setattr__(self, "extend", self.compiled(self.extend_eagerly))
    object.__setattr__(self, "init", jax.jit(self.variant.init, static_argnums=1))

  def compiled(self, function: Callable[..., Any], optimised: bool = False) -> Any:
    """A function under `jax.jit`, with the options of `FAST_COMPILE` unless a full battery asks for all optimisation.

    What XLA makes of a variant when it optimises is looked at where it could matter: against the oracle, against the
    eager form, in low precision and at length. Temporaries are laid out before that, and do not depend on it.
    """
    return jax.jit(function) if optimised and not self.quick else FastProgram(function)

  @property
  def claims(self) -> Claims:
    """What the variant promises."""
    return self.variant.claims()

  @property
  def spec(self) -> str:
    """The string that names the variant."""
    return spec.to_string(self.variant)

  @property
  def name(self) -> str:
    """The class, as messages of refusal name it."""
    return type(self.variant).__name__

  @property
  def differentiable(self) -> bool:
    """Whether gradients can be taken: not those of a function that runs outside of JAX."""
    return getattr(self.variant, "differentiable", True)

  @property
  def draws(self) -> int:
    """How many random instances a proof looks at."""
    return 2 if self.quick else 4

  def shape(self, **sizes: Any) -> Shape:
    """A shape that the variant accepts: H rounded up to what it can split; K = N unless it supports grouped heads.

    A mixture of heads shares out the key heads, and has K = N where these are no multiple of its counts.
    """
    shape, unit = Shape(**sizes), self.claims.head_multiple
    shape = shape._replace(H=-(-shape.H // unit) * unit)
    shared_out = all(shape.K % sum(count for count, _ in mixture.parts) == 0 for mixture in _mixtures(self.variant))
    return shape if self.claims.supports_gqa and shared_out else shape._replace(K=shape.N)

  def mask(self, mask: Mask = Mask()) -> Mask:
    """`mask`, causal where the variant is causal by construction."""
    return mask & CAUSAL if self.claims.requires_causal and not mask.causal else mask

  def params(self, dims: Dims, seed: int = 0) -> Params:
    """Initial parameters plus noise where they are trained: a mixing table that is the identity proves nothing."""
    if (dims, seed) not in self.known_params:
      self.known_params[dims, seed] = self._disturbed(
        self.init(jax.random.key(seed), dims), np.random.default_rng(seed + 1)
      )
    return self.known_params[dims, seed]

  def _disturbed(self, params: Params, rng: np.random.Generator) -> Params:
    def disturb(path: tuple, leaf: Any) -> Any:
      if is_fixed(path) or not jnp.issubdtype(leaf.dtype, jnp.floating):
        return leaf
      return jnp.asarray(np.asarray(leaf) + 0.4 * rng.normal(size=leaf.shape), leaf.dtype)

    return jax.tree_util.tree_map_with_path(disturb, params)

  def inputs(self, shape: Shape, seed: int = 0, scale: float = 1.0) -> Inputs:
    """Normal values times `scale`, one draw a seed and shape, as NumPy arrays in float32: they need no compiling."""
    rng = np.random.default_rng(zlib.crc32(f"{seed} {shape}".encode()))

    def normal(*sizes: int) -> np.ndarray:
      return (scale * rng.normal(size=sizes)).astype(np.float32)

    B, T, S, N, K, H, V, cross, _ = shape
    arrays = {"q": normal(B, T, N, H), "k": normal(B, S, K, H), "v": normal(B, S, K, V)}
    projected = {name: array if name in self.variant.projections else None for name, array in arrays.items()}
    return Inputs(**projected, x=normal(B, T, WIDTH), y=normal(B, S, WIDTH) if cross else None)

  def eager(self, params: Params, inputs: Inputs, call: Call) -> jax.Array:
    """The output of one call, not compiled; `forward` is its compiled form."""
    q, k, v, x, y = inputs
    return self.variant.with_aux(params, q, k, v, call._replace(x=x, y=y)).out

  def losses(self, params: Params, inputs: Inputs, call: Call) -> dict[str, Any]:
    """The auxiliary losses of one call, not compiled."""
    q, k, v, x, y = inputs
    return self.variant.with_aux(params, q, k, v, call._replace(x=x, y=y)).losses

  def refusal(self, params: Params, inputs: Inputs, call: Call) -> str | None:
    """The message with which the variant declines a call by name; None where it takes the call."""
    try:
      jax.eval_shape(self.eager, params, inputs, call)
    except Unsupported as refusal:
      return str(refusal)
    return None

  def run(self, inputs: Inputs, shape: Shape, call: Call = Call(), seed: int = 0) -> np.ndarray:
    """The compiled output in float32, with the parameters of `seed`."""
    return np.asarray(self.forward(self.params(shape.dims(), seed), inputs, call), np.float32)

  def _gradient(self, params: Params, inputs: Inputs, call: Call, cotangent: jax.Array) -> tuple[jax.Array, Any]:
    """The output, and the gradient of its product with `cotangent` for every float leaf of (params, inputs, bias)."""
    leaves, tree = jax.tree.flatten((params, inputs, call.bias))
    floats = [jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves]

    def out(chosen: list[Any]) -> jax.Array:
      rest = iter(chosen)
      params, inputs, bias = jax.tree.unflatten(
        tree, [next(rest) if f else x for f, x in zip(floats, leaves, strict=True)]
      )
      return self.eager(params, inputs, call._replace(bias=bias))

    value, back = jax.vjp(out, [x for f, x in zip(floats, leaves, strict=True) if f])
    grads = iter(back(cotangent.astype(value.dtype))[0])
    return value, jax.tree.unflatten(tree, [next(grads) if f else jnp.zeros(()) for f in floats])

  def extend_eagerly(
    self, params: Params, state: Any, inputs: Inputs, lengths: Any, mask: Mask
  ) -> tuple[Any, jax.Array]:
    """The state and output of one `extend`, not compiled; `extend` is its compiled form."""
    return self.variant.extend(params, state, *inputs[:3], x=inputs.x, lengths=lengths, mask=mask)


def _mixtures(variant: Attention) -> list[HeadMixture]:
  """The mixtures of heads that a variant is, or that stand in a composed layer."""
  if isinstance(variant, Composed):
    return _mixtures(variant.mechanism)
  if not isinstance(variant, HeadMixture):
    return []
  return [variant, *(inner for _, part in variant.parts for inner in _mixtures(part))]


@functools.cache
def _compile_options() -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
  """`FAST_COMPILE` and `FULL_COMPILE` where the installed XLA knows these options, else None twice."""
  try:
    jax.jit(lambda: 0, compiler_options=FAST_COMPILE)()
  except jax.errors.JaxRuntimeError:
    return None, None
  return FAST_COMPILE, FULL_COMPILE


class FastProgram:
  """A function under `jax.jit` with the options of `FAST_COMPILE`; a NaN is computed again with XLA's own options."""

  def __init__(self, function: Callable[..., Any]):
    self.function = function
    self.fast, self.full = (jax.jit(function, compiler_options=options) for options in _compile_options())
    self.lower = self.fast.lower

  def __call__(self, *args: Any) -> Any:
    """The outputs: a NaN among them is the function's, not that of a hasty compilation."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(args)):
      return self.function(*args)
    out = self.fast(*args)
    floats = [leaf for leaf in jax.tree.leaves(out) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return self.full(*args) if any(np.isnan(np.asarray(leaf)).any() for leaf in floats) else out


def is_fixed(path: tuple) -> bool:
  """Whether a leaf of the parameters is never trained, by its path in the tree."""
  return any(getattr(part, "key", None) == "fixed" for part in path)


def rows(inputs: Inputs, start: int, stop: int) -> Inputs:
  """The tokens start … stop − 1 of self-attention."""
  return Inputs(*(None if array is None else array[:, start:stop] for array in inputs))


def at_positions(i: Any = None, j: Any = None) -> Positions:
  """Positions from anything that NumPy takes; None stays the default."""
  q, k = (None if array is None else jnp.asarray(np.asarray(array, np.int32)) for array in (i, j))
  return Positions(q, k)
