"""Variants whose memory is a matrix S that decays and is written to, token by token: they name k, decay and write.

    S_t = diag(a_t) S_{t−1} + k_t u_tᵀ,   out_t = S_tᵀ q_t / √H
    u_t = v_t,   or with the delta rule   u_t = β_t (v_t − (diag(a_t) S_{t−1})ᵀ k_t)

In chunks: matrix products within a chunk, a state between chunks, the chunk computed again in the backward pass. Each
exponent is a sum of log decays over a stretch of tokens, added up from that stretch alone: never above 0, and free of
the cancellation of two long sums. A decay for each channel is multiplied out between blocks of `BLOCK` tokens and by
pairs inside them (Yang et al. 2023, https://arxiv.org/abs/2312.06635, section 4.3). The delta rule within a chunk is
one unit lower triangular system for all u_t (Yang et al. 2024, https://arxiv.org/abs/2406.06484, section 3), solved by
matrix products.

Without a causal mask a pass over the reversed sequence is added, in which a token reads before it writes, so that the
diagonal counts once. Order in the sequence is order in the array, whatever the positions. The state starts anew with
each contiguous run of a segment. A key that is hidden (kv_valid, an empty slot) is skipped: it is not written and
nothing decays there.
"""

import abc
import dataclasses
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from attention_lab.attention.base import HEADS, Attention, Call, Claims, Dims, Params, check_extend, logits_dtype, wide
from attention_lab.attention.engines.layout import chunks, heads_first, heads_last, joined
from attention_lab.attention.engines.triangular import solve
from attention_lab.attention.mask import CAUSAL, Mask

RATES = (1.0, 16.0)  # exp(A) at the start
STEPS = (1e-3, 1e-1)  # softplus(b) at the start
BLOCK = 8  # tokens whose decays are compared in pairs when each channel has its own


class Gates(NamedTuple):
  """What a token does to the memory."""

  k: Float[Array, "B T K H"]
  decay: Float[Array, "#B #T K W"] | None = None  # log a_t ≤ 0, W = 1 or H; None keeps everything
  write: Float[Array, "B T K"] | None = None  # β_t; None adds v_t without the delta rule


class Tokens(NamedTuple):
  """A stretch of the sequence; a skipped token has k, v, decay and write 0."""

  q: Float[Array, "B T N H"]
  k: Float[Array, "B T K H"]
  v: Float[Array, "B T K V"]
  decay: Float[Array, "B T K W"]
  write: Float[Array, "B T K 1"] | None
  runs: Int[Array, "B T"]  # tokens of one run share a memory


@dataclasses.dataclass(frozen=True)
class Gated(Attention):
  """A recurrence on a matrix. Time O(T·(H·V + (H + V)·chunk)); decoding state H × V a key head, whatever T."""

  chunk: int = 64  # tokens multiplied out at a time; changes the speed, not the result

  def __post_init__(self):
    if self.chunk < 1:
      raise ValueError(f"chunk={self.chunk} must be at least 1 token")

  @abc.abstractmethod
  def gates(self, params: Params, k: Float[Array, "B T K H"], x: Any) -> Gates:
    """The equation: keys as written, log decays and write strengths, from keys in float32 and the layer's input."""

  def claims(self) -> Claims:
    masks = frozenset({"causal", "q_valid", "kv_valid", "segments"})
    return Claims(masks=masks, cross=False, exactness="other", time_exponent=1, memory_exponent=1, state_exponent=0)

  def attend(self, params: Params, q: Array, k: Array, v: Array, call: Call) -> Float[Array, "B T N V"]:
    (B, T), mask = v.shape[:2], call.mask
    valid = None if call.positions.k is None else call.positions.k >= 0
    if mask.kv_valid is not None:
      valid = mask.kv_valid if valid is None else mask.kv_valid & valid
    runs = jnp.zeros((B, T), jnp.int32)
    if mask.k_segments is not None:
      borders = mask.k_segments[:, 1:] != mask.k_segments[:, :-1]
      runs += jnp.pad(jnp.cumsum(borders, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    tokens = self._tokens(params, q, k, v, call.x, valid)._replace(runs=runs)
    state = jnp.zeros((B, *tokens.k.shape[2:], v.shape[3]), logits_dtype(q, k, v))
    out = scan(tokens, state, self.chunk)[0]
    if not mask.causal:
      backward = jax.tree.map(lambda array: jnp.flip(array, axis=1), tokens)
      out += jnp.flip(scan(backward, state, self.chunk, own_key=False)[0], axis=1)
    if mask.q_segments is not None:
      shared = jnp.all(mask.q_segments == mask.k_segments, axis=1)[:, None, None, None]
      out = jnp.where(shared, out, jnp.nan)
    return out if mask.q_valid is None else jnp.where(mask.q_valid[:, :, None, None], out, 0.0)

  def init_state(self, batch: int, dims: Dims, dtype: Any) -> dict[str, Array]:
    shape = (batch, dims.kv_heads, dims.head, dims.value)
    return {"memory": jnp.zeros(shape, wide(dtype))}

  def extend(self, params, state, q, k, v, *, x=None, lengths=None, mask: Mask = CAUSAL):
    check_extend(self, mask, lengths)
    real = None if lengths is None else jnp.arange(v.shape[1])[None] < lengths[:, None]
    memory = state["memory"].astype(logits_dtype(q, k, v))
    out, after = scan(self._tokens(params, q, k, v, x, real), memory, self.chunk)
    out = out if real is None else jnp.where(real[:, :, None, None], out, 0.0)
    return {"memory": after.astype(state["memory"].dtype)}, out.astype(v.dtype)

  def project(self, params: Params, x: Any, k: Array) -> Array:
    """x_t W + b for the heads of k, `B T K …`, from kernel `D K …` and bias `K …`; ValueError without x."""
    if x is None:
      raise ValueError(f"{type(self).__name__} reads the layer's input: pass x, of shape B T D")
    kernel, bias = (own(params[name], k.shape[2], axis) for name, axis in (("kernel", 1), ("bias", 0)))
    return jnp.tensordot(x.astype(k.dtype), kernel.astype(k.dtype), axes=1) + bias.astype(k.dtype)[None, None]

  def _tokens(self, params: Params, q: Array, k: Array, v: Array, x: Any, valid: Array | None) -> Tokens:
    """Gates of all tokens; skipped tokens do nothing."""
    (B, T), K = q.shape[:2], k.shape[2]
    dtype = logits_dtype(q, k, v)
    gates = self.gates(params, k.astype(dtype), x)
    decay = jnp.zeros((1, 1, K, 1), dtype) if gates.decay is None else gates.decay
    decay = jnp.broadcast_to(decay, (B, T, *decay.shape[2:]))

    def seen(array: Array) -> Array:
      return array if valid is None else jnp.where(valid[:, :, None, None], array, 0.0)

    write = None if gates.write is None else seen(gates.write[..., None])
    runs = jnp.zeros((B, T), jnp.int32)
    return Tokens(q, seen(gates.k), seen(v), seen(decay), write, runs)


def own(array: Array, heads: int, axis: int) -> Array:
  """The part of a parameter, one entry a key head along `axis`, that `heads` key heads use.

  On a device that holds some of the heads its own entries; for key heads repeated in blocks each entry repeated.
  Raises ValueError where the sizes do not fit.
  """
  known = array.shape[axis]
  if heads % known == 0:
    return jnp.repeat(array, heads // known, axis=axis) if heads > known else array
  try:
    shard, shards = jax.lax.axis_index(HEADS), jax.lax.axis_size(HEADS)
  except NameError:
    shard, shards = 0, 1
  if heads * shards != known:
    raise ValueError(f"the parameters are for {known} key heads and k has {heads}: init with these kv_heads")
  return jax.lax.dynamic_slice_in_dim(array, shard * heads, heads, axis)


def timescales(key: Array, heads: int) -> dict[str, Array]:
  """Rates A with exp(A) uniform in `RATES` and biases b with softplus(b) log-uniform in `STEPS`, as Mamba-2 starts."""
  rates, steps = jax.random.split(key)
  low, high = map(math.log, STEPS)
  step = jnp.exp(jax.random.uniform(steps, (heads,), minval=low, maxval=high))
  rate = jax.random.uniform(rates, (heads,), minval=RATES[0], maxval=RATES[1])
  return {"bias": jnp.log(jnp.expm1(step)), "rate": jnp.log(rate)}


def scan(
  tokens: Tokens, state: Float[Array, "B K H V"], chunk: int, own_key: bool = True
) -> tuple[Float[Array, "B T N V"], Float[Array, "B K H V"]]:
  """What each token reads, starting from `state`, and the state after the last; own_key: reads what it wrote."""
  T = tokens.q.shape[1]
  size = min(chunk, T)
  whole = tokens._replace(runs=jnp.pad(tokens.runs, ((0, 0), (0, -T % size)), mode="edge"))
  carry = (state, tokens.runs[:, 0])
  step = functools.partial(_step, own_key)
  if size == T:
    (state, _), out = step(carry, whole)
    return out, state
  (state, _), out = jax.lax.scan(jax.checkpoint(step), carry, chunks(whole, size))
  return joined(out, T), state


def _step(own_key: bool, carry: tuple, tokens: Tokens) -> tuple[tuple, Array]:
  """One chunk against itself and against the state of all before it."""
  (state, carried), runs, q = carry, tokens.runs, heads_first(tokens.q, tokens.k.shape[2])
  k, v, decay, write = (None if array is None else jnp.swapaxes(array, 1, 2) for array in tokens[1:5])
  q, v = q.astype(state.dtype) * q.shape[-1] ** -0.5, v.astype(state.dtype)
  same = (runs[:, :, None] == runs[:, None, :]) & jnp.tril(jnp.ones((1, *(runs.shape[1],) * 2), bool))
  last = runs[:, -1]
  goes_on, newest = ((runs == run[:, None])[:, None, :, None] for run in (carried, last))
  since = jnp.where(goes_on, jnp.exp(jnp.cumsum(decay, axis=2)), 0.0)
  following = jnp.pad(decay[:, :, 1:], ((0, 0), (0, 0), (0, 1), (0, 0)))
  until = jnp.where(newest, jnp.exp(jax.lax.cumsum(following, axis=2, reverse=True)), 0.0)
  if write is not None:
    known = jnp.einsum("bkth,bkhv->bktv", k * since, state)
    system = write * jnp.where(jnp.tril(same, -1)[:, None], _weights(k[:, :, None], k, decay)[:, :, 0], 0.0)
    v = solve(system, write * (v - known))
  read = same if own_key else jnp.tril(same, -1)
  weights = jnp.where(read[:, None, None], _weights(q, k, decay), 0.0)
  before = jnp.einsum("bkgth,bkhv->bkgtv", q * since[:, :, None], state)
  after = since[:, :, -1, :, None] * state + jnp.einsum("bkth,bktv->bkhv", k * until, v)
  return (after, last), heads_last(before + jnp.einsum("bkgts,bksv->bkgtv", weights, v))


def _weights(q: Array, k: Array, decay: Array) -> Float[Array, "B K G C C"]:
  """Σ_h q_th k_sh exp(decay of channel h over s + 1 … t); meaningless, though finite, for s > t."""
  if decay.shape[-1] == 1:
    return jnp.einsum("bkgth,bksh->bkgts", q, k) * jnp.exp(_stretches(decay[..., 0])[:, :, None])
  B, K, G, C, H = q.shape
  size = math.gcd(C, BLOCK)
  q = q.reshape(B, K, G, -1, size, H)
  k, decay = (array.reshape(B, K, -1, size, H) for array in (k, decay))
  within = jnp.einsum("bkgith,bkish,bkitsh->bkgits", q, k, jnp.exp(_between(decay)))
  if size == C:
    return within.reshape(B, K, G, C, C)
  count = C // size
  gap = jnp.pad(_between(decay.sum(axis=3))[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0), (0, 0)))
  gap = jnp.where(jnp.tri(count, k=-1, dtype=bool)[:, :, None], jnp.exp(gap), 0.0)
  following = jnp.pad(decay[:, :, :, 1:], ((0, 0), (0, 0), (0, 0), (0, 1), (0, 0)))
  k = k * jnp.exp(jax.lax.cumsum(following, axis=3, reverse=True))
  q = q * jnp.exp(jnp.cumsum(decay, axis=3))[:, :, None]
  across = jnp.einsum("bkgith,bkijsh->bkgitjs", q, gap[:, :, :, :, None] * k[:, :, None])
  return (across + jnp.einsum("bkgits,ij->bkgitjs", within, jnp.eye(count, dtype=q.dtype))).reshape(B, K, G, C, C)


def _between(decay: Float[Array, "*B C W"]) -> Float[Array, "*B C C W"]:
  """Sums over the tokens s + 1 … t, at [t, s]; 0 where there are none."""
  later = jnp.tri(decay.shape[-2], k=-1, dtype=bool)[:, :, None]
  return jnp.cumsum(jnp.where(later, decay[..., :, None, :], 0.0), axis=-3)


def _stretches(decay: Float[Array, "B K C"]) -> Float[Array, "B K C C"]:
  """As `_between`, by a product of matrices."""
  C = decay.shape[-1]
  reached, later = jnp.tri(C, dtype=decay.dtype), jnp.tri(C, k=-1, dtype=bool)
  return jnp.einsum("tr,bkrs->bkts", reached, jnp.where(later, decay[..., None], 0.0), precision="highest")
