"""The interface of an attention variant; shapes and capabilities are checked here, once.

A variant is a frozen dataclass of hyper-parameters with a few pure functions. What a caller demands (mask, bias) is
honoured or refused by name; what a caller offers (x, y, key) may be declined.
"""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from attention_lab.attention import cache
from attention_lab.attention.mask import CAUSAL, FULL, NAMES, Mask
from attention_lab.attention.positions import Positions

Params = dict[
  str, Any
]  # arrays of a variant; those under "fixed" are never trained, those under "per_head" lead with N
State = Any  # a decoding state: a pytree whose every leaf has B as leading axis

EVERY_MASK = frozenset(NAMES)  # the claim of a variant that honours all constraints of Mask
HEADS = "tensor"  # the mesh axis that splits heads


class Unsupported(ValueError):
  """A variant was asked for something that it does not claim; the message names it and the fix."""


class Dims(NamedTuple):
  """The sizes that a variant's parameters and state depend on."""

  model: int  # D, the model width
  heads: int  # N, query heads
  kv_heads: int  # K, key and value heads
  head: int  # H, the width of a query and a key
  value: int  # V, the width of a value
  max_len: int  # tokens of the longest sequence


class AttentionOutput(NamedTuple):
  """The output of one call, with the scalars that come beside it."""

  out: Float[Array, "B T *_"]  # B T N V; B T D of a variant without the output projection
  losses: dict[str, Array] = {}  # auxiliary losses by name, weighted means over the batch, to be added to the task's
  stats: dict[str, Array] = {}  # statistics by name, to be logged


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
  needs_no_positions: bool = False  # its paper gives it no position code, and `positions=auto` adds none
  random: bool = False  # uses the key that it is offered
  straight_through: bool = False  # its gradient is not that of its output, but of a smooth stand-in
  exactness: str = "exact"  # exact: softmax over all readable keys; approximate: tends to it; other: another map
  time_exponent: int = 2  # work grows as T to this power
  memory_exponent: int = 1  # temporaries grow as T to this power
  state_exponent: int = 1  # decoding state grows as T to this power


class Call(NamedTuple):
  """The demands of one call (mask, positions, bias), which are honoured or refused, and its offers (x, y, key)."""

  mask: Mask = FULL
  positions: Positions = Positions()
  bias: Float[Array, "#B #N #T #S"] | None = None  # added to the logits; −∞ hides a key as the mask does
  x: Float[Array, "B T D"] | None = None  # the layer's input at the queries
  y: Float[Array, "B S D"] | None = None  # the layer's input at the keys; None in self-attention, where it is x
  key: Array | None = None  # a typed key, or on a mesh one for each example; None means no randomness


@dataclasses.dataclass(frozen=True)
class Attention(abc.ABC):
  """One way for queries to read values. Subclasses are frozen dataclasses: hashable, printable, the truth of a run."""

  projections: ClassVar[str] = "qkvo"  # the layer builds only these; the others arrive as None
  tunable: ClassVar[Mapping[str, tuple]] = {}  # field -> choices at one cost, for a comparison to tune on validation
  resizable: ClassVar[tuple[str, ...]] = ()  # integer fields that are mere sizes, changed where a budget is to be met
  undecayed: ClassVar[frozenset[str]] = frozenset()  # paths of arrays that weight decay leaves alone
  published: ClassVar[str] = ""  # the layer of its paper as a spec in which it is called `self`; "" adds nothing to it
  at_least_one: ClassVar[tuple[str, ...]] = ()  # fields that are refused below 1

  def __init_subclass__(cls, at_least_one: tuple[str, ...] = (), **kwargs: Any) -> None:
    """Adds `at_least_one`, an argument of the class, to the fields that are refused below 1."""
    super().__init_subclass__(**kwargs)
    cls.at_least_one += at_least_one

  def __post_init__(self) -> None:
    for name in self.at_least_one:
      if getattr(self, name) < 1:
        raise ValueError(f"{name}={getattr(self, name)} must be at least 1")

  @abc.abstractmethod
  def claims(self) -> Claims:
    """The promises of this instance, which may depend on its hyper-parameters."""

  @abc.abstractmethod
  def attend(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> Array | AttentionOutput:
    """The equation: what an author of a variant writes. The demands of the call are checked before.

    Args:
      params: the arrays that `init` made.
      q: queries `B T N H`, or None where `projections` has no q; k and v likewise.
      k: keys `B S K H`.
      v: values `B S K V`.
      call: mask, positions and bias, to be honoured; x, y and key, which may be declined.

    Returns:
      The output `B T N V`, alone or with losses and statistics; a row that may read no key is zeros.
    """

  def init(self, key: PRNGKeyArray, dims: Dims) -> Params:
    """Makes the parameters that the equation has beside the layer's projections.

    Args:
      key: randomness of the initial values.
      dims: sizes of the layer.

    Returns:
      A nested dict of arrays. Those under "fixed" are saved and never trained, decayed or counted; those under
      "per_head" have N as leading axis and are split with the heads. Weight decay leaves alone an array whose name
      begins with "bias", "gain" or "scale", one of a single axis, and those that `undecayed` names.
    """
    del key, dims
    return {}

  def __call__(self, params: Params, q: Any, k: Any, v: Any, **demands: Any) -> Array:
    """Checks, then attends.

    Args:
      params: the arrays that `init` made.
      q: queries `B T N H`, or None where `projections` has no q; k and v likewise.
      k: keys `B S K H`.
      v: values `B S K V`.
      **demands: mask, positions, bias, x, y and key, as in `Call`.

    Returns:
      The output `B T N V`, in the dtype of the values.

    Raises:
      Unsupported: for what the variant does not claim, with its name and the fix.
      ValueError: for shapes that do not fit each other.
    """
    return self.with_aux(params, q, k, v, Call(**demands)).out

  def with_aux(self, params: Params, q: Any, k: Any, v: Any, call: Call) -> AttentionOutput:
    """Checks, then attends, as a call does; returns the auxiliary losses and statistics too, which models use."""
    check(self, q, k, v, call)
    result = self.attend(params, q, k, v, call)
    output = result if isinstance(result, AttentionOutput) else AttentionOutput(result)
    return output if v is None else output._replace(out=output.out.astype(v.dtype))

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    """The declared receptive field: which keys a query can read at all, whatever the mask.

    Args:
      params: the arrays that `init` made.
      i: positions of queries.
      j: positions of keys, which broadcast against i.

    Returns:
      True where a query at i can read a key at j, or True for every pair. A variant that chooses keys by their content
      declares all that it may choose.
    """
    return True

  def capacity(self, dims: Dims) -> int:
    """The number of cache slots that decoding needs: the longest sequence, or a window, in tokens."""
    return dims.max_len

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> State:
    """The decoding state of `batch` sequences before their first token: here a cache of keys and values in `dtype`."""
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

    Any split of a sequence, extended part by part, equals one causal call.

    Args:
      params: the arrays that `init` made.
      state: the state of the tokens before, from `init_state` or the last `extend`.
      q: queries of the new tokens `B T N H`, or None where `projections` has no q; k and v likewise.
      k: their keys `B T K H`.
      v: their values `B T K V`.
      x: the layer's input at the new tokens.
      lengths: how many of the T tokens are real, the rest being padding on the right; None = all.
      mask: causal, possibly with window and prefix; a prefix must lie within the first part.

    Returns:
      The state after the new tokens, and their output `B T N V`: NaN beyond the capacity of an unbounded variant, never
      silently a window.

    Raises:
      Unsupported: the variant does not claim decoding, or the mask holds what decoding does not take.
    """
    check_extend(self, mask, lengths)
    step = cache.append(state, v[..., :0] if k is None else k, v, lengths, ring=self.claims().state_exponent == 0)
    mask = mask & Mask(q_valid=None if lengths is None else step.real)
    keys = None if k is None else step.k
    result = self.attend(params, q, keys, step.v, Call(mask, step.positions, x=x))
    out = (result.out if isinstance(result, AttentionOutput) else result).astype(v.dtype)
    return step.state, jnp.where(step.overflow[:, :, None, None], jnp.nan, out)


def check(variant: Attention, q: Any, k: Any, v: Any, call: Call) -> None:
  """Refuses a call by name before it is computed.

  Args:
    variant: the variant that is called.
    q: queries `B T N H`, or None; likewise k `B S K H` and v `B S K V`.
    k: keys.
    v: values.
    call: demands and offers.

  Raises:
    Unsupported: a demand, a number of key heads, a head width or cross-attention that the variant does not claim.
    ValueError: arrays that are missing, superfluous or of shapes that do not fit each other.
  """
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
  """Refuses an `extend` by name before it is computed.

  Args:
    variant: the variant that is to decode.
    mask: the mask of the call.
    lengths: the real tokens of each sequence, or None.

  Raises:
    Unsupported: the variant does not claim decoding, or the mask has no meaning there.
    ValueError: lengths are not of the shape `B`.
  """
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
  shapes = {letter: array.shape for letter, array in zip("qkv", (q, k, v), strict=True) if array is not None}
  for letter, shape in shapes.items():
    if len(shape) != 4:
      raise ValueError(f"{letter} must have 4 axes (batch, length, heads, width), not shape {shape}")
  if len({shape[0] for shape in shapes.values()}) > 1:
    raise ValueError(f"batch sizes differ: {shapes}")
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


def local_heads(array: Array, heads: int, axis: int) -> Array:
  """The part of a parameter that `heads` key heads use; the parameter has an entry for each key head along `axis`.

  On a device that holds some of the heads these are its entries; for key heads repeated in blocks each entry repeated.

  Raises:
    ValueError: the sizes do not fit.

  """
  known = array.shape[axis]
  if heads % known == 0:
    return jnp.repeat(array, heads // known, axis=axis) if heads > known else array
  shard: Array | int
  try:
    shard, shards = jax.lax.axis_index(HEADS), jax.lax.axis_size(HEADS)
  except NameError:
    shard, shards = 0, 1
  if heads * shards != known:
    raise ValueError(f"the parameters are for {known} key heads and k has {heads}: init with these kv_heads")
  return jax.lax.dynamic_slice_in_dim(array, shard * heads, heads, axis)


def logits_dtype(*arrays: Array) -> Any:
  """The dtype of logits and recurrences: float32, or wider where an input is wider."""
  return wide(*(array.dtype for array in arrays))


def wide(*dtypes: Any) -> Any:
  """The widest of these dtypes and float32."""
  return max((jnp.dtype(jnp.float32), *map(jnp.dtype, dtypes)), key=lambda dtype: dtype.itemsize)
