"""Causal variants whose scores depend on the keys between a key and the query, by cumulative sums along the keys."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Claims
from attention_lab.attention.families.scored import ScaledDotProduct

RUN = 32  # keys added up by one small matrix product


@dataclasses.dataclass(frozen=True)
class CausalCumsum(ScaledDotProduct):
  """Causal scores from inner products and from the readable keys that come after each key in the array.

  Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours causal (and needs it), windows,
  padding, segments and a bias. Refuses prefixes, explicit masks and cross-attention, which have no such order.
  """

  def claims(self) -> Claims:
    masks = frozenset({"causal", "window", "q_valid", "kv_valid", "segments"})
    plain = dataclasses.replace(super().claims(), masks=masks, cross=False)
    return dataclasses.replace(plain, requires_causal=True, encodes_positions=True)


def reverse_cumsum(amounts: Float[Array, "C #N #T S"], readable: Bool[Array, "C #N T S"]) -> Float[Array, "C N T S"]:
  """Exclusive cumulative sums from the last key backwards: Σ_l amounts_l over the readable keys l after each key.

  Each sum is over those keys alone and never a difference of longer ones, so that no other key leaves a trace in it.
  It is a product with a triangular matrix in runs of keys, and again over the runs: cheaper than a scan.
  """
  amounts = jnp.where(readable, amounts, 0.0)
  S = amounts.shape[-1]
  size = min(RUN, S)
  runs = jnp.pad(amounts, ((0, 0), (0, 0), (0, 0), (0, -S % size))).reshape(*amounts.shape[:-1], -1, size)
  after = _exclusive(jnp.sum(runs, axis=-1))[..., None] + _exclusive(runs)
  return after.reshape(*amounts.shape[:-1], -1)[..., :S]


def _exclusive(amounts: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
  """Exclusive cumulative sums from the end of the last axis backwards."""
  S = amounts.shape[-1]
  below = jnp.tri(S, k=-1, dtype=amounts.dtype)
  return jnp.matmul(amounts.reshape(-1, S), below, precision="highest").reshape(amounts.shape)
