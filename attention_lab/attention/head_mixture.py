"""A mixture by head: some heads of a layer use one variant, the others another (`2*local(window=64)+6*linear`)."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from attention_lab.attention.base import Attention, AttentionOutput, Call, Claims, Dims
from attention_lab.attention.families import counter_rng

_EXACTNESS = ("exact", "approximate", "other")
_VALUES = ("linear", "affine", "nonlinear")


@dataclasses.dataclass(frozen=True)
class HeadMixture(Attention):
  """Parts side by side, in order; each has its count's share of the N query heads and of the K key heads."""

  parts: tuple[tuple[int, Attention], ...]

  def __post_init__(self):
    for _, part in self.parts:
      if not any(letter in part.projections for letter in "qkv"):
        raise ValueError(
          f"{type(part).__name__} has no heads to share out: take it for a whole layer, with | and not +"
        )

  @property
  def projections(self) -> str:  # type: ignore[override]
    """All that any part reads."""
    return "".join(letter for letter in "qkvo" if any(letter in part.projections for _, part in self.parts))

  def claims(self) -> Claims:
    """What every part promises; the parts' costs add up."""
    claims = [part.claims() for _, part in self.parts]
    every = {
      name: all(getattr(c, name) for c in claims)
      for name in ("bias", "cross", "decode", "supports_gqa", "per_query", "encodes_positions")
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
    biases, patterns = (self._cut(array, axis=1) for array in (call.bias, call.mask.explicit))

    def one(i: int, part: Attention, own: list[Any]) -> AttentionOutput:
      mask = dataclasses.replace(call.mask, explicit=patterns[i])
      key = None if call.key is None else counter_rng.fold_in(call.key, i)
      q, k, v = own
      return part.with_aux(params[str(i)], q, k, v, call._replace(mask=mask, bias=biases[i], key=key))

    parts = self._each(one, q, k, v)
    losses = {f"{i}/{name}": value for i, part in enumerate(parts) for name, value in part.losses.items()}
    stats = {f"{i}/{name}": value for i, part in enumerate(parts) for name, value in part.stats.items()}
    return AttentionOutput(jnp.concatenate([part.out for part in parts], axis=2), losses, stats)

  def init_state(self, batch: int, dims: Dims, dtype: Any):
    shares = zip(self._shares(dims.heads), self._shares(dims.kv_heads), strict=True)
    sizes = [dims._replace(heads=n, kv_heads=k) for n, k in shares]
    return {str(i): part.init_state(batch, sizes[i], dtype) for i, (_, part) in enumerate(self.parts)}

  def extend(self, params, state, q, k, v, **demands: Any):
    def one(i: int, part: Attention, own: list[Any]) -> tuple[Any, Any]:
      return part.extend(params[str(i)], state[str(i)], *own, **demands)

    states, outs = zip(*self._each(one, q, k, v), strict=True)
    return {str(i): part for i, part in enumerate(states)}, jnp.concatenate(outs, axis=2)

  def _each(self, call: Callable, *arrays: Any) -> list[Any]:
    """Calls every part with its own heads of q, k and v."""
    cuts = [self._cut(array) for array in arrays]
    results = []
    for i, (_, part) in enumerate(self.parts):
      own = [cut[i] if letter in part.projections else None for letter, cut in zip("qkv", cuts, strict=True)]
      results.append(call(i, part, own))
    return results

  def _cut(self, array: Any, axis: int = 2) -> list[Any]:
    """Each part's own heads; what is one for all heads stays so."""
    if array is None or (axis == 1 and array.shape[1] == 1):
      return [array] * len(self.parts)
    edges = [sum(self._shares(array.shape[axis])[:i]) for i in range(1, len(self.parts))]
    return jnp.split(array, edges, axis=axis)

  def _shares(self, heads: int) -> list[int]:
    total = sum(count for count, _ in self.parts)
    if heads % total:
      counts = "+".join(str(count) for count, _ in self.parts)
      raise ValueError(f"{heads} heads cannot be shared out as {counts}: take a multiple of {total}")
    return [count * heads // total for count, _ in self.parts]
