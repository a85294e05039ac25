"""Sums over the past, in chunks: out_i = φ(q_i)·Σ_{j readable} φ(k_j) v_jᵀ with a running sum when causal.

Work and memory are linear in T: matrix products within a chunk, a state between chunks, and the chunk's products
computed again in the backward pass. Katharopoulos et al. 2020 (https://arxiv.org/abs/2006.16236), equations 8 to 12.
Order in the sequence is order in the array, and a segment is one contiguous run, as packing makes them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.mask import Mask
from attention_lab.attention.primitives.plan import pad, split


class Features(NamedTuple):
  """Features of queries and keys, and values; what is not readable has key features 0."""

  q: Float[Array, "B K G T M"]
  k: Float[Array, "B K S M"]
  v: Float[Array, "B K S V"]


class _Chunk(NamedTuple):
  features: Features
  q_segments: Int[Array, "B C"] | None
  k_segments: Int[Array, "B C"] | None


def full(features: Features) -> Float[Array, "B K G T V"]:
  """Every query reads every key."""
  return jnp.einsum("bkgtm,bkmv->bkgtv", features.q, jnp.einsum("bksm,bksv->bkmv", features.k, features.v))


def causal(features: Features, mask: Mask, chunk: int) -> Float[Array, "B K G T V"]:
  """Query t reads the keys s ≤ t of its segment; T may differ from S."""
  (B, K, _, T, M), V = features.q.shape, features.v.shape[-1]
  keys = Features(features.q, pad(features.k, T), pad(features.v, T))
  return scan(keys, jnp.zeros((B, K, M, V), features.v.dtype), chunk, mask)[0]


def within_segments(features: Features, mask: Mask, chunk: int) -> Float[Array, "B K G T V"]:
  """Both directions inside each segment: a causal pass and a reversed one, less the diagonal that both counted."""
  reverse = Mask(q_segments=mask.q_segments[:, ::-1], k_segments=mask.k_segments[:, ::-1])
  backward = causal(jax.tree.map(lambda a: jnp.flip(a, axis=-2), features), reverse, chunk)
  own = jnp.einsum("bkgtm,bktm->bkgt", features.q, features.k)[..., None] * features.v[:, :, None]
  return causal(features, mask, chunk) + jnp.flip(backward, axis=-2) - own


def scan(
  features: Features, state: Float[Array, "B K M V"], chunk: int, mask: Mask = Mask()
) -> tuple[Float[Array, "B K G T V"], Float[Array, "B K M V"]]:
  """The causal sum that starts from `state`, and the state after the last token."""
  T = features.q.shape[3]
  size = min(chunk, T)
  blocks = -(-T // size)
  segments = tuple(
    None if a is None else jnp.pad(a, ((0, 0), (0, blocks * size - T)), mode="edge")
    for a in (mask.q_segments, mask.k_segments)
  )
  whole = _Chunk(jax.tree.map(lambda a: pad(a, blocks * size), features), *segments)
  carried = None if segments[1] is None else segments[1][:, 0]
  if blocks == 1:
    (state, _), out = _step((state, carried), whole)
    return out, state
  chunks = jax.tree.map(lambda a: split(a, blocks), whole)
  (state, _), out = jax.lax.scan(jax.checkpoint(_step), (state, carried), chunks)
  return jnp.moveaxis(out, 0, 3).reshape(*out.shape[1:4], -1, out.shape[-1])[..., :T, :], state


def _step(carry: tuple, chunk: _Chunk) -> tuple[tuple, Array]:
  """One chunk against itself and against the state of all before it."""
  (state, carried), (features, q_segments, k_segments) = carry, chunk
  q, k, v = features
  past = jnp.tril(jnp.ones((q.shape[3], k.shape[2]), bool))
  if k_segments is None:
    weights = jnp.where(past, jnp.einsum("bkgtm,bksm->bkgts", q, k), 0.0)
    before = jnp.einsum("bkgtm,bkmv->bkgtv", q, state)
    after = state + jnp.einsum("bksm,bksv->bkmv", k, v)
    return (after, None), before + jnp.einsum("bkgts,bksv->bkgtv", weights, v)
  same = past[None] & (q_segments[:, :, None] == k_segments[:, None, :])
  weights = jnp.where(same[:, None, None], jnp.einsum("bkgtm,bksm->bkgts", q, k), 0.0)
  goes_on = (q_segments == carried[:, None])[:, None, None, :, None]
  before = jnp.where(goes_on, jnp.einsum("bkgtm,bkmv->bkgtv", q, state), 0.0)
  last = k_segments[:, -1]
  newest = jnp.where((k_segments == last[:, None])[:, None, :, None], k, 0.0)
  kept = jnp.where((carried == last)[:, None, None, None], state, 0.0)
  after = kept + jnp.einsum("bksm,bksv->bkmv", newest, v)
  return (after, last), before + jnp.einsum("bkgts,bksv->bkgtv", weights, v)
