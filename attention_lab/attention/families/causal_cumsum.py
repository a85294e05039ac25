"""Variants in which the keys between query and key count: sums along the readable keys, in the order of the array."""

import dataclasses

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from attention_lab.attention.base import Claims
from attention_lab.attention.families.scored import Scaled

RUN = 32  # keys that one small matrix product adds up


@dataclasses.dataclass(frozen=True)
class Ordered(Scaled):
  """Scored by inner products and by the readable keys that come after each key in the array; causal.

  Time O(T·S), memory O(S) for each block of queries; decoding state O(S). Honours causal (and needs it), windows,
  padding, segments and a bias. Refuses prefixes, explicit masks and cross-attention, which have no such order.
  """

  def claims(self) -> Claims:
    masks = frozenset({"causal", "window", "q_valid", "kv_valid", "segments"})
    plain = dataclasses.replace(super().claims(), masks=masks, cross=False)
    return dataclasses.replace(plain, requires_causal=True, encodes_positions=True)


def later(amounts: Float[Array, "C N #T S"], readable: Bool[Array, "C #N T S"]) -> Float[Array, "C N T S"]:
  """For each pair, the sum of `amounts` over the query's readable keys that come after the key in the array.

  Each sum is over those keys alone and never a difference of longer ones, so that what is not in it leaves no trace.
  It is a product with a triangular matrix in runs of keys, and again over the runs: cheaper than a scan.
  """
  amounts = jnp.where(readable, amounts, 0.0)
  S = amounts.shape[-1]
  size = min(RUN, S)
  runs = jnp.pad(amounts, ((0, 0), (0, 0), (0, 0), (0, -S % size))).reshape(*amounts.shape[:-1], -1, size)
  after = _after(jnp.sum(runs, axis=-1))[..., None] + _after(runs)
  return after.reshape(*amounts.shape[:-1], -1)[..., :S]


def _after(amounts: Float[Array, "*B S"]) -> Float[Array, "*B S"]:
  """Sums over what comes later along the last axis."""
  S = amounts.shape[-1]
  below = jnp.tri(S, k=-1, dtype=amounts.dtype)
  return jnp.matmul(amounts.reshape(-1, S), below, precision="highest").reshape(amounts.shape)
