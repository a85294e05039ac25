"""Softmax attention by the fused GPU kernels of others: cuDNN through `jax.nn`, Mosaic and Triton through tokamax.

A kernel computes the call as demanded, or the call is refused with the reason: nothing falls back. Causal and windowed
calls at positions 0, 1, 2, … stay structure that a kernel skips blocks by; every other mask becomes an array `… T S`.
"""

from types import ModuleType
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Attention, Call, Unsupported
from attention_lab.config import nearest_hint

Implementation = Literal["xla", "cudnn", "tokamax"]

MAX_WIDTH = 256  # of a head, for cuDNN; before Hopper it is 128, which jax checks
WIDTH_MULTIPLE = 8  # of a head, for cuDNN: a width is a multiple of it
TOKAMAX_KERNELS = ("mosaic", "triton")  # the implementations of tokamax, without its XLA


class Demands(NamedTuple):
  """Mask and bias of a call, as arguments of `jax.nn.dot_product_attention`."""

  bias: Float[Array, "#B #N #T #S"] | None = None
  mask: Bool[Array, "#B #N T S"] | None = None
  is_causal: bool = False
  local_window_size: tuple[int, int] | None = None


def check(variant: Attention, **others: Any) -> None:
  """Refuses an unknown `variant.implementation`, and a kernel beside other fields that only XLA computes."""
  chosen, choices = getattr(variant, "implementation", "xla"), get_args(Implementation)
  if chosen not in choices:
    hint = nearest_hint(str(chosen), choices)
    raise ValueError(f"implementation={chosen!r} is unknown{hint}; choices: {', '.join(choices)}")
  for name, value in others.items():
    if chosen != "xla" and value:
      raise _refused(variant, f"does not compute {name}={value}: leave {name} out, or implementation='xla'")


def attend(
  variant: Attention,
  q: Float[Array, "B T N H"],
  k: Float[Array, "B S K H"],
  v: Float[Array, "B S K V"],
  call: Call,
  scale: float,
) -> Float[Array, "B T N V"]:
  """Softmax-weighted values by `variant.implementation`, 'cudnn' or 'tokamax'; zeros where a query reads nothing.

  cuDNN adds the bias in the dtype of q. Raises Unsupported on another platform, for dtypes other than bfloat16 and
  float16, and for what the kernel does not take.
  """
  cudnn = getattr(variant, "implementation", "xla") == "cudnn"
  _check_call(variant, q, k, v, cudnn)
  T, S = q.shape[1], k.shape[1]
  demands = translate(call, T, S, cudnn)
  readable = demands.mask
  if cudnn:
    q, k, v, demands = _pad_even(q, k, v, demands)
  try:
    if cudnn:
      out = jax.nn.dot_product_attention(q, k, v, scale=scale, implementation="cudnn", **demands._asdict())
    else:
      tokamax = _tokamax(variant)
      out = tokamax.dot_product_attention(q, k, v, scale=scale, implementation=TOKAMAX_KERNELS, **demands._asdict())
  except (NotImplementedError, ExceptionGroup) as error:
    reasons = "; ".join(map(str, getattr(error, "exceptions", (error,)))).replace("\n", " ")
    raise _refused(variant, f"cannot run this call ({reasons}): use implementation='xla'") from error
  out = out[:, :T]
  if readable is None:
    return out
  return jnp.where(jnp.swapaxes(jnp.any(readable, axis=3), 1, 2)[..., None], out, 0)


def translate(call: Call, T: int, S: int, cudnn: bool) -> Demands:
  """The mask and bias of a call as arguments of a kernel.

  Of `local_window_size=(l, r)` a query reads i − l ≤ j ≤ i + r, so a window (left, right), −right < i − j < left, is
  (left − 1, right − 1). A kernel is given one only where it is right and every query reads a key: cuDNN knows the
  left edge alone, for T ≤ S, and no bias beside it; tokamax makes the edges of as many queries as there are keys.
  """
  mask, span = call.mask, call.mask.span
  causal = mask.causal and mask.prefix is None and call.positions.known
  fits = span is None or (mask.causal and T <= S and call.bias is None if cudnn else T == S)
  if fits and call.positions.known and mask.names() <= {"causal", "window"}:
    window = None if span is None else (span[0] - 1, 0 if causal else span[1] - 1)
    return Demands(call.bias, None, causal, window)
  return Demands(call.bias, mask.dense(T, S, call.positions), causal)


def _pad_even(q: Array, k: Array, v: Array, demands: Demands) -> tuple[Array, Array, Array, Demands]:
  """Arguments padded to even numbers of queries and keys, with the bias over all of both, as cuDNN's gradient needs."""
  T, S = q.shape[1], k.shape[1]
  more = (T % 2, S % 2)
  bias, mask = demands.bias, demands.mask
  if mask is None and S % 2 and not (demands.is_causal and T <= S):
    mask = jnp.ones((1, 1, T, S), bool)
  if bias is not None:
    bias = jnp.broadcast_to(bias, (*bias.shape[:2], T, S)).astype(q.dtype)
  bias, mask = (None if array is None else _pad(array, (0, 0, *more)) for array in (bias, mask))
  k, v = (_pad(array, (0, more[1], 0, 0)) for array in (k, v))
  return _pad(q, (0, more[0], 0, 0)), k, v, demands._replace(bias=bias, mask=mask)


def _pad(array: Array, more: tuple[int, ...]) -> Array:
  """The array with `more` zeros at the end of each axis."""
  return jnp.pad(array, [(0, count) for count in more]) if any(more) else array


def _check_call(variant: Attention, q: Array, k: Array, v: Array, cudnn: bool) -> None:
  """Refuses platforms, dtypes and widths that the kernel does not compute."""
  platform = jax.default_backend()
  if platform != "gpu":
    raise _refused(variant, f"needs a GPU, and this is a {platform}: leave implementation out")
  dtypes = {array.dtype.name for array in (q, k, v)}
  if len(dtypes) > 1 or not dtypes <= {"bfloat16", "float16"}:
    names = ", ".join(sorted(dtypes))
    raise _refused(
      variant, f"computes in bfloat16 or float16, not {names}: give q, k and v one of them, or implementation='xla'"
    )
  H, V = q.shape[3], v.shape[3]
  if cudnn and V != H:
    raise _refused(variant, f"needs values as wide as keys, not {V} and {H}: use implementation='xla'")
  if cudnn and (H > MAX_WIDTH or H % WIDTH_MULTIPLE):
    raise _refused(
      variant,
      f"needs a head width of at most {MAX_WIDTH} and a multiple of {WIDTH_MULTIPLE}, not {H}: "
      "use implementation='xla'",
    )


def _tokamax(variant: Attention) -> ModuleType:
  """The package tokamax, or Unsupported with the command that installs it."""
  try:
    import tokamax
  except ImportError as error:
    raise _refused(variant, "needs the package tokamax: pip install tokamax, or leave implementation out") from error
  return tokamax


def _refused(variant: Attention, reason: str) -> Unsupported:
  """The refusal of a call by the variant's implementation."""
  name = type(variant).__module__.rpartition(".")[2]
  return Unsupported(f"{name}(implementation={getattr(variant, 'implementation', 'xla')!r}) {reason}")
