"""The interface of an attention variant; shapes and capabilities are checked here, once.

A variant is a frozen dataclass of hyper-parameters with a few pure functions. What a caller demands (mask, bias) is
honoured or refused by name; what a caller offers (x, y, key) may be declined.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import cache
from attention_lab.attention.mask import CAUSAL, FULL, NAMES, Mask
from attention_lab.attention.positions import Positions

Params = dict[str, Any]  # leaves under "fixed" are never trained; leaves under "per_head" have N as leading axis
State = Any  # a pytree whose every leaf has B as leading axis

EVERY_MASK = frozenset(NAMES)
HEADS = "tensor"  # the mesh axis that splits heads


class Unsupported(ValueError):
  """A variant was asked for something that it does not claim; the message names it and the fix."""


class Dims(NamedTuple):
  """Sizes that a variant's parameters and state depend on."""

  model: int  # D
  heads: int  # N
  kv_heads: int  # K
  head: int  # H
  value: int  # V
  max_len: int  # longest sequence


class AttentionOutput(NamedTuple):
  """What a variant gives back: the output, auxiliary losses to add (scalars), statistics to log (scalars)."""

  out: Float[Array, "B T *_"]
  losses: dict[str, Array] = {}
  stats: dict[str, Array] = {}


@dataclasses.dataclass(frozen=True)
class Claims:
  """The promises of one instance; the battery in `attention_lab.certify` proves each from the outside."""

  masks: frozenset[str] = frozenset()  # constraints of Mask that are honoured
  requires_causal: bool = False  # runs only under a causal mask
  bias: bool = False  # an additive bias on the logits is honoured
  cross: bool = True  # queries and keys may come from different sequences (T ≠ S)
  decode: bool = True  # `extend` gives what one causal call gives
  supports_gqa: bool = True  # K < N
  per_query: bool = True  # a row depends on its own query alone
  mixes_heads: bool = False  # a head reads the other heads' logits
  values: str = "linear"  # the output as a function of v: linear, affine or nonlinear
  head_multiple: int = 1  # the width of a head is a multiple of this
  encodes_positions: bool = False  # tells positions apart by itself
  random: bool = False  # uses the key that it is offered
  straight_through: bool = False  # its gradient is not that of its output, but of a smooth stand-in
  exactness: str = "exact"  # exact: softmax over all readable keys; approximate: tends to it; other: another map
  time_exponent: int = 2  # work grows as T to this power
  memory_exponent: int = 1  # temporaries grow as T to this power
  state_exponent: int = 1  # decoding state grows as T to this power


class Call(NamedTuple):
  """One call's demands (mask, positions, bias) and offers (x, y, key)."""

  mask: Mask = FULL
  positions: Positions = Positions()
  bias: Float[Array, "#B #N #T #S"] | None = None
  x: Float[Array, "B T D"] | None = None  # the layer's input at the queries
  y: Float[Array, "B S D"] | None = None  # the layer's input at the keys; None in self-attention, where it is x
  key: Array | None = None  # a typed key, or on a mesh one for each example; None means no randomness


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
  """One way for queries to read values. Subclasses are frozen dataclasses: hashable, printable, the truth of a run."""

  projections: ClassVar[str] = "qkvo"  # the layer builds only these; the others arrive as None
  tunable: ClassVar[Mapping[str, tuple]] = {}  # field -> choices at one cost, for a comparison to tune on validation
  resizable: ClassVar[tuple[str, ...]] = ()  # integer fields that are mere sizes, changed where a budget is to be met

  @abc.abstractmethod
  def claims(self) -> Claims:
    """What this instance promises."""

  @abc.abstractmethod
  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Array | AttentionOutput:
    """The equation: out `B T N V` from q `B T N H`, k `B S K H`, v `B S K V`. Demands are checked before."""

  def init(self, key: PRNGKeyArray, dims: Dims) -> Params:
    """Parameters of the variant's own."""
    del key, dims
    return {}

  def __call__(self, params: Params, q: Any, k: Any, v: Any, **demands: Any) -> Array:
    """Checks, then attends. Keywords: mask, positions, bias, x, y, key, as in `Call`."""
    return self.with_aux(params, q, k, v, Call(**demands)).out

  def with_aux(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> AttentionOutput:
    """As a call, with auxiliary losses and statistics: what models use."""
    check(self, q, k, v, call)
    result = self.attend(params, q, k, v, call)
    attended = result if isinstance(result, AttentionOutput) else AttentionOutput(result)
    return attended if v is None else attended._replace(out=attended.out.astype(v.dtype))

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    """Which keys at positions j a query at position i can read at all: the declared receptive field; True = every key.

    i and j broadcast against each other. A variant that chooses keys by their content declares all that it may choose.
    """
    return True

  def capacity(self, dims: Dims) -> int:
    """Cache slots that decoding needs: the longest sequence, or a window."""
    return dims.max_len

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> State:
    """The state before the first token: here a cache of keys and values."""
    width = dims.head if "k" in self.projections else 0
    return cache.empty(batch, self.capacity(dims), dims.kv_heads, (width, dims.value), dtype)

  def extend(
    self,
    params: Params,
    state: State,
    q: Any,
    k: Any,
    v: Any,
    *,
    x: Float[Array, "B T D"] | None = None,
    lengths: Int[Array, "B"] | None = None,
    mask: Mask = CAUSAL,
  ) -> tuple[State, Array]:
    """Prefill and decoding in one: appends T tokens and attends from them to all so far.

    Any split of a sequence, extended piece by piece, equals one causal call. lengths `B`: how many of the T tokens
    are real, the rest being padding on the right (None = all). mask: causal, possibly with window and prefix; a
    prefix must lie within the first piece. Beyond the capacity of an unbounded variant the output is NaN, never
    silently a window.
    """
    check_extend(self, mask, lengths)
    piece = cache.append(state, v[..., :0] if k is None else k, v, lengths, ring=self.claims().state_exponent == 0)
    mask = mask & Mask(q_valid=None if lengths is None else piece.real)
    keys = None if k is None else piece.k
    attended = self.attend(params, q, keys, piece.v, Call(mask, piece.positions, x=x))
    out = (attended.out if isinstance(attended, AttentionOutput) else attended).astype(v.dtype)
    return piece.state, jnp.where(piece.overflow[:, :, None, None], jnp.nan, out)


def check(variant: Attention, q: Any, k: Any, v: Any, call: Call) -> None:
  """Refuses by name what the variant does not claim, and shapes that do not fit."""
  name, claims = type(variant).__name__, variant.claims()
  for demand in sorted(call.mask.names() - claims.masks):
    raise Unsupported(f"{name} does not honour the mask constraint '{demand}'; it honours {_listed(claims.masks)}")
  if claims.requires_causal and not call.mask.causal:
    raise Unsupported(f"{name} is causal by construction: call it with mask=Mask(causal=True)")
  if call.bias is not None and not claims.bias:
    raise Unsupported(f"{name} has no logits to add a bias to: leave bias out or take an exact variant such as softmax")
  for letter, array in zip("qkv", (q, k, v), strict=True):
    if (letter in variant.projections) != (array is not None):
      raise ValueError(
        f"{name} reads the projections '{variant.projections}': {letter} must be {'given' if array is None else 'None'}"
      )
  if not any(letter in variant.projections for letter in "qkv") and call.x is None:
    raise ValueError(f"{name} reads the layer's input: pass x, of shape B T D")
  _check_heads(name, claims, q, k, v)
  _check_cross(name, claims, q, k, v, call)


def check_extend(variant: Attention, mask: Mask, lengths: Any) -> None:
  """Refuses decoding where the variant does not claim it, and masks that decoding has no meaning for."""
  name, claims = type(variant).__name__, variant.claims()
  if not claims.decode:
    why = "" if claims.per_query else ": each of its rows depends on the other queries"
    raise Unsupported(f"{name} cannot decode step by step{why}")
  if not mask.causal:
    raise Unsupported(f"{name}.extend is causal: pass a mask with causal=True")
  for demand in sorted(mask.names() - ({"causal", "window", "prefix"} & claims.masks)):
    raise Unsupported(f"{name}.extend does not take the mask constraint '{demand}'; padding goes into lengths=")
  if lengths is not None and lengths.ndim != 1:
    raise ValueError(f"lengths must have shape (B,), not {lengths.shape}")


def refuse_positions(variant: Attention, call: Call) -> None:
  """Raises Unsupported where positions are passed to a variant that orders tokens by their index in the array."""
  if not call.positions.known:
    raise Unsupported(
      f"{type(variant).__name__} knows tokens by their place in the array and has no use for positions: leave them out"
    )


def _check_heads(name: str, claims: Claims, q: Any, k: Any, v: Any) -> None:
  given = {letter: array.shape for letter, array in zip("qkv", (q, k, v), strict=True) if array is not None}
  for letter, shape in given.items():
    if len(shape) != 4:
      raise ValueError(f"{letter} must have 4 axes (batch, length, heads, width), not shape {shape}")
  if len({shape[0] for shape in given.values()}) > 1:
    raise ValueError(f"batch sizes differ: {given}")
  if k is not None and v is not None and k.shape[1:3] != v.shape[1:3]:
    raise ValueError(f"k {k.shape} and v {v.shape} must agree in length and heads")
  if q is not None and q.shape[3] % claims.head_multiple:
    raise Unsupported(f"{name} needs a head width that is a multiple of {claims.head_multiple}, not {q.shape[3]}")
  if q is not None and k is not None:
    if q.shape[3] != k.shape[3]:
      raise ValueError(f"q and k must have one width, not {q.shape[3]} and {k.shape[3]}")
    if q.shape[2] % k.shape[2]:
      raise ValueError(f"{q.shape[2]} query heads are not a multiple of {k.shape[2]} key and value heads")
    if q.shape[2] != k.shape[2] and not claims.supports_gqa:
      raise Unsupported(
        f"{name} needs as many key and value heads as query heads, not {k.shape[2]} for {q.shape[2]}: set kv_heads=0"
      )


def _check_cross(name: str, claims: Claims, q: Any, k: Any, v: Any, call: Call) -> None:
  lengths = {array.shape[1] for array in (q, k, v, call.x, call.y) if array is not None}
  if not claims.cross and (len(lengths) > 1 or (call.y is not None and call.y is not call.x)):
    raise Unsupported(f"{name} mixes one sequence with itself: cross-attention (y, or T ≠ S) is not claimed")


def _listed(names: frozenset[str]) -> str:
  return ", ".join(sorted(names)) or "none"


def logits_dtype(*arrays: Array) -> Any:
  """The dtype of logits and recurrences: float32, or wider where an input is wider."""
  return wide(*(array.dtype for array in arrays))


def wide(*dtypes: Any) -> Any:
  """The widest of float32 and these."""
  return max((jnp.dtype(jnp.float32), *map(jnp.dtype, dtypes)), key=lambda dtype: dtype.itemsize)
