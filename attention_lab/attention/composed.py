"""A mechanism with the parts of a layer around it: `conv(4)>gated_delta>norm>gate`, or `published(gated_delta)`."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from attention_lab.attention.base import (
  Attention,
  AttentionOutput,
  Call,
  Claims,
  Dims,
  Params,
  State,
  check_extend,
  logits_dtype,
)
from attention_lab.attention.layer_parts import PARTS, Conv, Gate, Nope, Norm, OutputPart, Part, QkNorm, Skip
from attention_lab.attention.mask import CAUSAL, Mask
from attention_lab.attention.positions import Positions

_CONV_MASKS = frozenset({"causal", "q_valid", "kv_valid", "segments"})  # constraints that a convolution can honour


@dataclasses.dataclass(frozen=True)
class Composed(Attention):
  """A mechanism between parts of a layer; a convolution limits what it claims, as its outputs read earlier tokens.

  With a convolution: hidden tokens count as zeros for those after them, each run of a segment begins without earlier
  tokens, windows and explicit masks are refused, and the last tokens are part of the decoding state.

  Raises:
    ValueError: a part that stands twice, or that the mechanism has no use for.
  """

  before: tuple[Part, ...]
  mechanism: Attention
  after: tuple[OutputPart, ...]
  rotation: Any = None  # turns queries and keys, (x, positions) -> x, behind `before`; the model sets it

  def __post_init__(self):
    letters, name = self.mechanism.projections, type(self.mechanism).__name__
    for parts in (self.before, self.after):
      for part in parts:
        word = _name(part)
        if [type(other) for other in parts].count(type(part)) > 1:
          raise ValueError(f"the part {word} stands twice")
        needed = {Conv: "qkv", QkNorm: "qk", Skip: "vo", Norm: "o", Gate: "o"}.get(type(part), "")
        if missing := [letter for letter in needed if letter not in letters]:
          raise ValueError(f"the part {word} needs the projections {needed}, and {name} has no {' and '.join(missing)}")

  @property
  def projections(self) -> str:  # type: ignore[override]
    """Those of the mechanism."""
    return self.mechanism.projections

  @property
  def undecayed(self) -> frozenset[str]:  # type: ignore[override]
    """The paths that the mechanism leaves undecayed, behind its own."""
    return frozenset(f"mechanism/{name}" for name in self.mechanism.undecayed)

  @property
  def conv(self) -> Conv | None:
    """The convolution, if there is one."""
    return next((part for part in self.before if isinstance(part, Conv)), None)

  @property
  def _adds_values(self) -> bool:
    return any(isinstance(part, Skip) for part in self.after)

  def claims(self) -> Claims:
    """The mechanism's promises, less those that the parts break."""
    claims, parts = self.mechanism.claims(), self.before + self.after
    linear = not any(
      isinstance(part, Norm)
      or (isinstance(part, Gate) and part.per == "channel")
      or (isinstance(part, Conv) and part.activation != "none")
      for part in parts
    )
    changes: dict[str, Any] = {
      "masks": claims.masks & _CONV_MASKS if self.conv else claims.masks,
      "cross": claims.cross and not any(isinstance(part, Conv | Skip) for part in parts),
      "per_query": claims.per_query and not self.conv,
      "mixes_heads": claims.mixes_heads or any(isinstance(part, Norm) and part.over == "layer" for part in parts),
      "values": claims.values if linear else "nonlinear",
      "needs_no_positions": claims.needs_no_positions or any(isinstance(part, Nope) for part in parts),
      "exactness": claims.exactness if all(isinstance(part, Nope) for part in parts) else "other",
    }
    return dataclasses.replace(claims, **changes)

  def init(self, key, dims: Dims):
    mechanism, *keys = jax.random.split(key, 1 + len(self.before) + len(self.after))
    params = {"mechanism": self.mechanism.init(mechanism, dims)}
    for part, part_key in zip(self.before + self.after, keys, strict=True):
      if arrays := part.init(part_key, dims, self.projections):
        params[_name(part)] = arrays
    return params

  def attend(self, params, q, k, v, call: Call) -> AttentionOutput:
    positions, mask = call.positions, call.mask
    source = dataclasses.replace(positions, q=positions.k) if call.y is not None else positions
    hidden, runs = _hidden(call), (_runs(mask.q_segments), _runs(mask.k_segments), _runs(mask.k_segments))
    tails = self.conv.empty_tail(v.shape[0], _sizes(q, k, v), "qkv", v.dtype) if self.conv else {}
    q, k, v = self._prepared(params, (q, k, v), tails, runs, hidden)
    q, k = self._rotated(q, positions), self._rotated(k, source)
    output = self.mechanism.with_aux(params["mechanism"], q, k, v, call)
    if mask.q_valid is not None and self._adds_values:
      hidden = ~mask.q_valid if hidden is None else hidden | ~mask.q_valid
    return output._replace(out=self._finished(params, output.out, call.x, v, hidden))

  def pattern(self, params: Params, i: Array, j: Array) -> Array | bool:
    """Keys whose convolution a query can read, and the tokens of its own convolution."""
    inner, width = params["mechanism"], self.conv.width if self.conv else 1
    reads = self.mechanism.pattern(inner, i, j)
    if reads is True or width == 1:
      return reads
    for s in range(1, width):
      reads = reads | self.mechanism.pattern(inner, i, j + s) | (i - j == s)
    return reads

  def capacity(self, dims: Dims) -> int:
    return self.mechanism.capacity(dims)

  def init_state(self, batch: int, dims: Dims, dtype: Any):
    state = {"mechanism": self.mechanism.init_state(batch, dims, dtype)}
    if self.conv:
      state["tail"] = self.conv.empty_tail(batch, dims, self.projections, dtype)
    if self.rotation:
      state["length"] = jnp.zeros((batch,), jnp.int32)
    return state

  def extend(self, params, state: State, q, k, v, *, x=None, lengths=None, mask: Mask = CAUSAL):
    check_extend(self, mask, lengths)
    after, tokens = dict(state), {"q": q, "k": k, "v": v}
    T = next(array.shape[1] for array in (q, k, v, x) if array is not None)
    real = None if lengths is None else jnp.arange(T)[None] < lengths[:, None]
    tails = state.get("tail", {})
    q, k, v = self._prepared(params, (q, k, v), tails, (None, None, None), None)
    if self.conv:
      after["tail"] = {name: self.conv.next_tail(tail, tokens[name], lengths) for name, tail in tails.items()}
    if self.rotation:
      positions = Positions(q=state["length"][:, None] + jnp.arange(T, dtype=jnp.int32)[None])
      after["length"] = state["length"] + (T if lengths is None else lengths)
      q, k = self._rotated(q, positions), self._rotated(k, positions)
    arrays = {"x": x, "lengths": lengths, "mask": mask}
    after["mechanism"], out = self.mechanism.extend(params["mechanism"], state["mechanism"], q, k, v, **arrays)
    out = self._finished(params, out, x, v, None if real is None else ~real)
    return after, out if v is None else out.astype(tokens["v"].dtype)

  def _prepared(self, params: Params, arrays: tuple, tails: dict, runs: tuple, hidden: Any) -> list[Any]:
    """q, k and v behind the parts that stand before the mechanism."""
    prepared = list(arrays)
    if any(isinstance(part, Conv | QkNorm) for part in self.before):  # rounded once, by the mechanism
      prepared = [array if array is None else array.astype(logits_dtype(array)) for array in arrays]
    for part in self.before:
      if isinstance(part, Conv):
        each = zip("qkv", prepared, runs, strict=True)
        prepared = [part(params["conv"][name], array, tails[name], run, hidden) for name, array, run in each]
      elif isinstance(part, QkNorm):
        gains = params.get("qk_norm", {})
        prepared[:2] = [part(gains.get(name), array) for name, array in zip("qk", prepared, strict=False)]
    return prepared

  def _rotated(self, array: Any, positions: Positions) -> Any:
    return array if self.rotation is None or array is None else self.rotation(array, positions)

  def _finished(self, params: Params, out: Array, x: Any, v: Any, hidden: Any) -> Float[Array, "B T N V"]:
    """The output behind the parts that stand there; a token that is hidden adds no value of its own."""
    dtype, out = out.dtype, out.astype(logits_dtype(out))
    if hidden is not None and self._adds_values:
      v = jnp.where(hidden[:, :, None, None], 0.0, v)
    for part in self.after:
      out = part(params.get(_name(part), {}), out, x, v)
    return out.astype(dtype)


def _name(part: Part) -> str:
  """The name of a part in a spec and in the parameters."""
  return next(name for name, kind in PARTS.items() if isinstance(part, kind))


def _sizes(q: Array, k: Array, v: Array) -> Dims:
  return Dims(0, q.shape[2], k.shape[2], q.shape[3], v.shape[3], 0)


def _runs(segments: Int[Array, "#B T"] | None) -> Int[Array, "#B T"] | None:
  """A number for each contiguous run of a segment."""
  if segments is None:
    return None
  borders = segments[:, 1:] != segments[:, :-1]
  return jnp.pad(jnp.cumsum(borders, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))


def _hidden(call: Call) -> Bool[Array, "#B S"] | None:
  """True for the keys that are padding or empty slots."""
  hidden = [] if call.mask.kv_valid is None else [~call.mask.kv_valid]
  if call.positions.k is not None:
    hidden.append(call.positions.k < 0)
  return functools.reduce(jnp.logical_or, hidden) if hidden else None
