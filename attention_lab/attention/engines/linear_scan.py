"""The linear attention scan, in chunks: out_i = φ(q_i)·Σ_{j readable} φ(k_j) v_jᵀ, with a running sum when causal.

For a reader of FlashLinearAttention: its chunkwise form without decay. Work and memory are linear in T: matrix products
within a chunk, a state between chunks, and the chunk's products recomputed in the backward pass. Heads come to the
front chunk by chunk. Katharopoulos et al. 2020 (https://arxiv.org/abs/2006.16236), equations 8 to 12. Order in the
sequence is order in the array, and a segment is one contiguous run, as packing makes them.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import logits_dtype
from attention_lab.attention.engines.layout import chunks, heads_first, heads_last, joined
from attention_lab.attention.mask import Mask


class Features(NamedTuple):
  """Features φ of queries and keys, and values; a key that is not readable has features 0."""

  q: Float[Array, "B T N M"]
  k: Float[Array, "B S K M"]
  v: Float[Array, "B S K V"]


class _Chunk(NamedTuple):
  """C tokens of the sequence with their segments."""

  features: Features
  q_segments: Int[Array, "B C"] | None
  k_segments: Int[Array, "B C"] | None


def normalised(out: Float[Array, "B T N W"]) -> Float[Array, "B T N V"]:
  """Out divided by its last column, the sum of weights; a query that read nothing has sum 0 and gets zeros."""
  total = out[..., -1:]
  size = jax.lax.stop_gradient(jnp.where(total == 0.0, 1.0, total))  # so that no derivative has its square
  return out[..., :-1] / size / jnp.where(total == 0.0, 1.0, total / size)


def full(features: Features) -> Float[Array, "B T N V"]:
  """Linear attention in which every query reads every key."""
  q, k, v = _in_front(features)
  return normalised(heads_last(jnp.einsum("bkgtm,bkmv->bkgtv", q, jnp.einsum("bksm,bksv->bkmv", k, v))))


def causal(features: Features, mask: Mask, chunk: int) -> Float[Array, "B T N V"]:
  """Causal linear attention: query t reads the keys s ≤ t of its segment; T may differ from S."""
  return normalised(_causal(features, mask, chunk))


def within_segments(features: Features, mask: Mask, chunk: int) -> Float[Array, "B T N V"]:
  """Linear attention within segments: a causal pass and a reversed one, less the diagonal that both counted."""
  q_segments, k_segments = jax.tree.map(lambda ids: ids[:, ::-1], (mask.q_segments, mask.k_segments))
  reverse = Mask(q_segments=q_segments, k_segments=k_segments)
  backward = _causal(jax.tree.map(lambda a: jnp.flip(a, axis=1), features), reverse, chunk)
  q, k, v = _in_front(features)
  diagonal = jnp.einsum("bkgtm,bktm->bkgt", q, k)[..., None] * v[:, :, None]
  return normalised(_causal(features, mask, chunk) + jnp.flip(backward, axis=1) - heads_last(diagonal))


def scan(
  features: Features, state: Float[Array, "B K M W"], chunk: int, mask: Mask = Mask()
) -> tuple[Float[Array, "B T N W"], Float[Array, "B K M W"]]:
  """Causal sums, not normalised, and the state after the last token.

  Args:
    features: of T queries and as many keys.
    state: Σ_j φ(k_j) [v_j, 1]ᵀ before the first token; W = V + 1, the last column for the sum of weights.
    chunk: tokens multiplied out at a time; it changes the speed and not the result.
    mask: of which only the segments are read.
  """
  T = features.q.shape[1]
  size = min(chunk, T)
  both = (mask.q_segments, mask.k_segments)
  segments = tuple(None if a is None else jnp.pad(a, ((0, 0), (0, -T % size)), mode="edge") for a in both)
  carried = None if segments[1] is None else segments[1][:, 0]
  if size == T:
    (state, _), out = _step((state, carried), _Chunk(features, *segments))
    return out, state
  parts = chunks(_Chunk(features, *segments), size)
  (state, _), out = jax.lax.scan(jax.checkpoint(_step), (state, carried), parts)
  return joined(out, T), state


def _causal(features: Features, mask: Mask, chunk: int) -> Float[Array, "B T N W"]:
  """Causal sums, not normalised, from an empty state; keys are cut or padded to T."""
  (B, T, _, M), (S, K, V) = features.q.shape, features.v.shape[1:]
  widths = ((0, 0), (0, max(T - S, 0)), (0, 0), (0, 0))
  keys = (jnp.pad(array[:, :T], widths) for array in features[1:])
  state = jnp.zeros((B, K, M, V + 1), logits_dtype(features.v))
  return scan(Features(features.q, *keys), state, chunk, mask)[0]


def _in_front(features: Features) -> tuple[Array, Array, Array]:
  """Heads in front, and a column of ones beside the values, whose sum is the normaliser."""
  q, (k, v) = heads_first(features.q, features.k.shape[2]), (jnp.swapaxes(array, 1, 2) for array in features[1:])
  v = v.astype(logits_dtype(v))
  return q, k, jnp.concatenate([v, jnp.ones((*v.shape[:-1], 1), v.dtype)], axis=-1)


def _step(carry: tuple, chunk: _Chunk) -> tuple[tuple, Array]:
  """One chunk against itself and against the state of all before it."""
  (state, carried), (features, q_segments, k_segments) = carry, chunk
  q, k, v = _in_front(features)
  past = jnp.tril(jnp.ones((q.shape[3], k.shape[2]), bool))
  if q_segments is None or k_segments is None:
    weights = jnp.where(past, jnp.einsum("bkgtm,bksm->bkgts", q, k), 0.0)
    before = jnp.einsum("bkgtm,bkmv->bkgtv", q, state)
    after = state + jnp.einsum("bksm,bksv->bkmv", k, v)
    return (after, None), heads_last(before + jnp.einsum("bkgts,bksv->bkgtv", weights, v))
  same = past[None] & (q_segments[:, :, None] == k_segments[:, None, :])
  weights = jnp.where(same[:, None, None], jnp.einsum("bkgtm,bksm->bkgts", q, k), 0.0)
  continues = (q_segments == carried[:, None])[:, None, None, :, None]
  before = jnp.where(continues, jnp.einsum("bkgtm,bkmv->bkgtv", q, state), 0.0)
  last = k_segments[:, -1]
  newest = jnp.where((k_segments == last[:, None])[:, None, :, None], k, 0.0)
  same_segment = jnp.where((carried == last)[:, None, None, None], state, 0.0)
  after = same_segment + jnp.einsum("bksm,bksv->bkmv", newest, v)
  return (after, last), heads_last(before + jnp.einsum("bkgts,bksv->bkgtv", weights, v))
