"""A mixture by head: some heads of a layer use one variant, the others another (`2*local(window=64)+6*linear`)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, AttentionOutput, Call, Claims, Dims
from attention_lab.attention.composed import Composed
from attention_lab.attention.families import counter_rng

_EXACTNESS = ("exact", "approximate", "other")  # values of `Claims.exactness`, the weakest last
_VALUES = ("linear", "affine", "nonlinear")  # values of `Claims.values`, the weakest last


@dataclasses.dataclass(frozen=True)
class HeadMixture(Attention):
  """Parts side by side, in order; each has its count's share of the N query heads and of the K key heads.

  Raises:
    ValueError: a part that has no heads, or heads that the counts do not divide.
  """

  parts: tuple[tuple[int, Attention], ...]  # (count, variant)

  def __post_init__(self):
    for _, part in self.parts:
      if not any(letter in part.projections for letter in "qkv"):
        raise ValueError(
          f"{type(part).__name__} has no heads to share out: take it for a whole layer, with | and not +"
        )

  @property
  def projections(self) -> str:  # type: ignore[override]
    """The letters of all projections that some part reads."""
    return "".join(letter for letter in "qkvo" if any(letter in part.projections for _, part in self.parts))

  @property
  def undecayed(self) -> frozenset[str]:  # type: ignore[override]
    """The names that some part leaves undecayed, each behind the number of its part."""
    return frozenset(f"{i}/{name}" for i, (_, part) in enumerate(self.parts) for name in part.undecayed)

  def claims(self) -> Claims:
    """The promises that all parts make, and the largest of their costs."""
    claims = [part.claims() for _, part in self.parts]
    every = {
      name: all(getattr(c, name) for c in claims)
      for name in ("bias", "cross", "decode", "supports_gqa", "per_query", "encodes_positions", "needs_no_positions")
    }
    some = {name: any(getattr(c, name) for c in claims) for name in ("requires_causal", "random")}
    most: dict = {"head_multiple": math.lcm(*(c.head_multiple for c in claims))}
    most |= {
      name: max(getattr(c, name) for c in claims) for name in ("time_exponent", "memory_exponent", "state_exponent")
    }
    return Claims(
      masks=frozenset.intersection(*(c.masks for c in claims)),
      mixes_heads=True,
      exactness=max((c.exactness for c in claims), key=_EXACTNESS.index),
      values=max((c.values for c in claims), key=_VALUES.index),
      **every,
      **some,
      **most,
    )

  def init(self, key, dims: Dims):
    keys = jax.random.split(key, len(self.parts))
    shares = self._shares(dims.heads), self._shares(dims.kv_heads)
    sizes = [dims._replace(heads=n, kv_heads=k) for n, k in zip(*shares, strict=True)]
    return {str(i): part.init(keys[i], sizes[i]) for i, (_, part) in enumerate(self.parts)}

  def attend(self, params, q, k, v, call: Call) -> AttentionOutput:
    biases, patterns = (self._split(array, axis=1) for array in (call.bias, call.mask.explicit))

    def attend(i: int, part: Attention, q: Any, k: Any, v: Any) -> AttentionOutput:
      mask = dataclasses.replace(call.mask, explicit=patterns[i])
      key = None if call.key is None else counter_rng.fold_in(call.key, i)
      return part.with_aux(params[str(i)], q, k, v, call._replace(mask=mask, bias=biases[i], key=key))

    outputs = self._each(attend, q, k, v)
    losses = {f"{i}/{name}": value for i, output in enumerate(outputs) for name, value in output.losses.items()}
    stats = {f"{i}/{name}": value for i, output in enumerate(outputs) for name, value in output.stats.items()}
    return AttentionOutput(jnp.concatenate([output.out for output in outputs], axis=2), losses, stats)

  def init_state(self, batch: int, dims: Dims, dtype: Any):
    shares = zip(self._shares(dims.heads), self._shares(dims.kv_heads), strict=True)
    sizes = [dims._replace(heads=n, kv_heads=k) for n, k in shares]
    return {str(i): part.init_state(batch, sizes[i], dtype) for i, (_, part) in enumerate(self.parts)}

  def extend(self, params, state, q, k, v, **demands: Any):
    def extend(i: int, part: Attention, q: Any, k: Any, v: Any) -> tuple[Any, Any]:
      return part.extend(params[str(i)], state[str(i)], q, k, v, **demands)

    states, outs = zip(*self._each(extend, q, k, v), strict=True)
    lost = [jnp.any(jnp.isnan(out), axis=(2, 3), keepdims=True) for out in outs]  # beyond the cache of one of them
    out = jnp.where(functools.reduce(jnp.logical_or, lost), jnp.nan, jnp.concatenate(outs, axis=2))
    return {str(i): new for i, new in enumerate(states)}, out

  def _each(self, call: Callable, *arrays: Any) -> list[Any]:
    """The results of calling every part with its heads of q, k and v."""
    shares = [self._split(array) for array in arrays]
    results = []
    for i, (_, part) in enumerate(self.parts):
      heads = [share[i] if letter in part.projections else None for letter, share in zip("qkv", shares, strict=True)]
      results.append(call(i, part, *heads))
    return results

  def _split(self, array: Any, axis: int = 2) -> list[Any]:
    """The heads of each part; a bias or mask that is one for all heads goes to all parts."""
    if array is None or (axis == 1 and array.shape[1] == 1):
      return [array] * len(self.parts)
    edges = [sum(self._shares(array.shape[axis])[:i]) for i in range(1, len(self.parts))]
    return jnp.split(array, edges, axis=axis)

  def _shares(self, heads: int) -> list[int]:
    """The number of heads of each part."""
    total = sum(count for count, _ in self.parts)
    if heads % total:
      counts = "+".join(str(count) for count, _ in self.parts)
      raise ValueError(f"{heads} heads cannot be shared out as {counts}: take a multiple of {total}")
    return [count * heads // total for count, _ in self.parts]


def single_variants(variant: Attention) -> tuple[Attention, ...]:
  """The mechanisms of a layer: those of a mixture's heads in order, or the one that all heads share, without parts."""
  if isinstance(variant, HeadMixture):
    return tuple(single for _, part in variant.parts for single in single_variants(part))
  return single_variants(variant.mechanism) if isinstance(variant, Composed) else (variant,)


def map_variants(function: Callable[[Attention], Attention], variant: Attention) -> Attention:
  """A layer's variant with `function` applied to each of its `single_variants`, its mixtures and parts as they are."""
  if isinstance(variant, HeadMixture):
    return HeadMixture(tuple((count, map_variants(function, part)) for count, part in variant.parts))
  if isinstance(variant, Composed):
    return dataclasses.replace(variant, mechanism=map_variants(function, variant.mechanism))
  return function(variant)


def composed_heads(variant: Attention) -> bool:
  """Whether some heads of a layer have parts around their mechanism."""
  return isinstance(variant, Composed) or (
    isinstance(variant, HeadMixture) and any(composed_heads(part) for _, part in variant.parts)
  )


def with_rotation(variant: Attention, rotation: Any) -> Attention:
  """A layer whose queries and keys are turned behind its convolutions and norms, where papers turn them.

  Args:
    variant: the variant of the layer; heads that have positions or need none are left as they are.
    rotation: (x, positions) -> x of the same shape, `B T N H`.

  Returns:
    The layer, with the rotation inside.
  """
  claims = variant.claims()
  if isinstance(variant, HeadMixture):
    return HeadMixture(tuple((count, with_rotation(part, rotation)) for count, part in variant.parts))
  if claims.encodes_positions or claims.needs_no_positions or not {"q", "k"} <= set(variant.projections):
    return variant
  layer = variant if isinstance(variant, Composed) else Composed((), variant, ())
  return dataclasses.replace(layer, rotation=rotation)
