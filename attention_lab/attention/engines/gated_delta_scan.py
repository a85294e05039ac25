"""The gated delta scan: a recurrence on a matrix S that decays and is written to, token by token.

    S_t = diag(a_t) S_{t−1} + k_t u_tᵀ,   out_t = S_tᵀ q_t / √H
    u_t = v_t,   or with the delta rule   u_t = β_t (v_t − (diag(a_t) S_{t−1})ᵀ k_t)

In chunks, as FlashLinearAttention does it: matrix products within a chunk, a state between chunks, the chunk recomputed
in the backward pass. Each exponent is a sum of log decays over a stretch of tokens (Mamba-2's "segsum"), added up from
that stretch alone: never above 0, and free of the cancellation of two long sums. A decay for each channel is multiplied
out between blocks of `BLOCK` tokens and by pairs inside them (Yang et al. 2023, https://arxiv.org/abs/2312.06635,
section 4.3). The delta rule within a chunk is one unit lower triangular system for all u_t (Yang et al. 2024,
https://arxiv.org/abs/2406.06484, section 3), solved by matrix products.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.engines.layout import chunks, heads_first, heads_last, joined

BLOCK = 8  # tokens whose decays are compared in pairs when each channel has its own


class Tokens(NamedTuple):
  """A stretch of the sequence; a skipped token has k, v, log_decay and beta 0."""

  q: Float[Array, "B T N H"]
  k: Float[Array, "B T K H"]
  v: Float[Array, "B T K V"]
  log_decay: Float[Array, "B T K W"]  # log a_t ≤ 0, W = 1 or H
  beta: Float[Array, "B T K 1"] | None  # β_t; None adds v_t without the delta rule
  segment_ids: Int[Array, "B T"]  # contiguous tokens of one id share a memory


def scan(
  tokens: Tokens, state: Float[Array, "B K H V"], chunk: int, read_after_write: bool = True
) -> tuple[Float[Array, "B T N V"], Float[Array, "B K H V"]]:
  """The outputs of all tokens, starting from `state`, and the state after the last token.

  Args:
    tokens: the sequence and its gates.
    state: S before the first token.
    chunk: tokens multiplied out at a time; it changes the speed and not the result.
    read_after_write: a token reads what it wrote itself; else only what was written before it.

  """
  T = tokens.q.shape[1]
  size = min(chunk, T)
  padded = tokens._replace(segment_ids=jnp.pad(tokens.segment_ids, ((0, 0), (0, -T % size)), mode="edge"))
  carry = (state, tokens.segment_ids[:, 0])
  step = functools.partial(_step, read_after_write)
  if size == T:
    (state, _), out = step(carry, padded)
    return out, state
  (state, _), out = jax.lax.scan(jax.checkpoint(step), carry, chunks(padded, size))
  return joined(out, T), state


def _step(read_after_write: bool, carry: tuple, tokens: Tokens) -> tuple[tuple, Array]:
  """One chunk against itself and against the state of all before it."""
  (state, carried_id), ids, q = carry, tokens.segment_ids, heads_first(tokens.q, tokens.k.shape[2])
  k, v, log_decay = (jnp.swapaxes(array, 1, 2) for array in (tokens.k, tokens.v, tokens.log_decay))
  beta = None if tokens.beta is None else jnp.swapaxes(tokens.beta, 1, 2)
  q, v = q.astype(state.dtype) * q.shape[-1] ** -0.5, v.astype(state.dtype)
  same = (ids[:, :, None] == ids[:, None, :]) & jnp.tril(jnp.ones((1, *(ids.shape[1],) * 2), bool))
  last_id = ids[:, -1]
  continues, newest = ((ids == segment[:, None])[:, None, :, None] for segment in (carried_id, last_id))
  decay_from_start = jnp.where(continues, jnp.exp(jnp.cumsum(log_decay, axis=2)), 0.0)
  following = jnp.pad(log_decay[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
  decay_to_end = jnp.where(newest, jnp.exp(jax.lax.cumsum(following, axis=2, reverse=True)), 0.0)
  if beta is not None:
    recalled = jnp.einsum("bkth,bkhv->bktv", k * decay_from_start, state)
    system = beta * jnp.where(jnp.tril(same, -1)[:, None], _weights(k[:, :, None], k, log_decay)[:, :, 0], 0.0)
    v = solve_unit_lower(system, beta * (v - recalled))
  read = same if read_after_write else jnp.tril(same, -1)
  weights = jnp.where(read[:, None, None], _weights(q, k, log_decay), 0.0)
  before = jnp.einsum("bkgth,bkhv->bkgtv", q * decay_from_start[:, :, None], state)
  after = decay_from_start[:, :, -1, :, None] * state + jnp.einsum("bkth,bktv->bkhv", k * decay_to_end, v)
  return (after, last_id), heads_last(before + jnp.einsum("bkgts,bksv->bkgtv", weights, v))


def _weights(q: Array, k: Array, log_decay: Array) -> Float[Array, "B K G C C"]:
  """Σ_h q_th k_sh exp(log decay of channel h over s + 1 … t); meaningless, though finite, for s > t."""
  if log_decay.shape[-1] == 1:
    return jnp.einsum("bkgth,bksh->bkgts", q, k) * jnp.exp(_segsum_of_heads(log_decay[..., 0])[:, :, None])
  B, K, G, C, H = q.shape
  size = math.gcd(C, BLOCK)
  q = q.reshape(B, K, G, -1, size, H)
  k, log_decay = (array.reshape(B, K, -1, size, H) for array in (k, log_decay))
  within = jnp.einsum("bkgith,bkish,bkitsh->bkgits", q, k, jnp.exp(segsum(log_decay)))
  if size == C:
    return within.reshape(B, K, G, C, C)
  count = C // size
  gap = jnp.pad(segsum(log_decay.sum(axis=3))[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
  gap = jnp.where(jnp.tri(count, k=-1, dtype=bool)[:, :, None], jnp.exp(gap), 0.0)
  following = jnp.pad(log_decay[:, :, :, 1:], ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0)))
  k = k * jnp.exp(jax.lax.cumsum(following, axis=3, reverse=True))
  q = q * jnp.exp(jnp.cumsum(log_decay, axis=3))[:, :, None]
  across = jnp.einsum("bkgith,bkijsh->bkgitjs", q, gap[:, :, :, :, None] * k[:, :, None])
  return (across + jnp.einsum("bkgits,ij->bkgitjs", within, jnp.eye(count, dtype=q.dtype))).reshape(B, K, G, C, C)


def segsum(log_decay: Float[Array, "*B C W"]) -> Float[Array, "*B C C W"]:
  """Segment sums: at [t, s] the sum over the tokens s + 1 … t; 0 where there are none."""
  later = jnp.tri(log_decay.shape[-2], k=-1, dtype=bool)[:, :, None]
  return jnp.cumsum(jnp.where(later, log_decay[..., :, None, :], 0.0), axis=-3)


def _segsum_of_heads(log_decay: Float[Array, "B K C"]) -> Float[Array, "B K C C"]:
  """`segsum` of one decay for a head, by a product of matrices."""
  C = log_decay.shape[-1]
  reached, later = jnp.tri(C, dtype=log_decay.dtype), jnp.tri(C, k=-1, dtype=bool)
  return jnp.einsum("tr,bkrs->bkts", reached, jnp.where(later, log_decay[..., None], 0.0), precision="highest")


def solve_unit_lower(lower: Float[Array, "B K C C"], right: Float[Array, "B K C V"]) -> Float[Array, "B K C V"]:
  """The u of u + lower u = right for a strictly lower triangular matrix; derivatives are those of the equation."""
  inverse = _inverse(jax.lax.stop_gradient(lower))
  return jax.lax.custom_linear_solve(
    lambda u: u + lower @ u,
    right,
    solve=lambda _, b: jnp.matmul(inverse, b, precision="highest"),
    transpose_solve=lambda _, b: jnp.matmul(jnp.swapaxes(inverse, -1, -2), b, precision="highest"),
  )


def _inverse(lower: Float[Array, "B K C C"]) -> Float[Array, "B K C C"]:
  """(1 + lower)⁻¹ from blocks on the diagonal, two at a time: [[A, 0], [L, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹LA⁻¹, D⁻¹]].

  No power of `lower` is formed. The entries of every block lie in −1 … 1, for each step of the rule is a contraction.
  """
  B, K, C = lower.shape[:3]
  size, full = 1, 2 ** math.ceil(math.log2(C))
  lower = jnp.pad(lower, ((0, 0), (0, 0), (0, full - C), (0, full - C)))
  inverse = jnp.ones((B, K, full, 1, 1), lower.dtype)
  while size < full:
    pairs = lower.reshape(B, K, full // (2 * size), 2, size, full // (2 * size), 2, size)[:, :, :, 1, :, :, 0]
    corner = jnp.einsum("bkipiq->bkipq", pairs)
    first, second = inverse[:, :, ::2], inverse[:, :, 1::2]
    corner = -jnp.matmul(second, jnp.matmul(corner, first, precision="highest"), precision="highest")
    top, bottom = [first, jnp.zeros_like(first)], [corner, second]
    inverse = jnp.concatenate([jnp.concatenate(row, axis=-1) for row in (top, bottom)], axis=-2)
    size *= 2
  return inverse[:, :, 0, :C, :C]
