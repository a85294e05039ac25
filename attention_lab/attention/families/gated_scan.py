"""Variants whose memory is a matrix S that decays and is written to: a variant gives k, log_decay and beta by token.

    S_t = diag(a_t) S_{t−1} + k_t u_tᵀ,   out_t = S_tᵀ q_t / √H
    u_t = v_t,   or with the delta rule   u_t = β_t (v_t − (diag(a_t) S_{t−1})ᵀ k_t)

`engines.gated_delta_scan` computes them in chunks. Without a causal mask a pass over the reversed sequence is added, in
which a token reads before it writes, so that the diagonal counts once. Order in the sequence is order in the array,
whatever the positions. The state starts anew with each contiguous run of a segment. A key that is hidden (kv_valid, an
empty slot) is skipped: it is not written and nothing decays there.
"""

import abc
import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from attention_lab.attention.base import (
  Attention,
  Call,
  Claims,
  Dims,
  Params,
  check_extend,
  local_heads,
  logits_dtype,
  wide,
)
from attention_lab.attention.engines.gated_delta_scan import Tokens, scan
from attention_lab.attention.mask import CAUSAL, Mask

MAMBA2_RATES = (1.0, 16.0)  # range of exp(A) at the start
MAMBA2_STEPS = (1e-3, 1e-1)  # range of softplus(b) at the start


class Gates(NamedTuple):
  """The effect of a token on the memory."""

  k: Float[Array, "B T K H"]  # keys as written
  log_decay: Float[Array, "#B #T K W"] | None = None  # log a_t ≤ 0, W = 1 or H; None keeps everything
  beta: Float[Array, "B T K"] | None = None  # write strength β_t; None adds v_t without the delta rule


@dataclasses.dataclass(frozen=True)
class GatedScan(Attention, at_least_one=("chunk",)):
  """A recurrence on a matrix. Time O(T·(H·V + (H + V)·chunk)); decoding state H × V a key head, whatever T."""

  chunk: int = 64  # tokens multiplied out at a time; changes the speed, not the result

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
    segment_ids = jnp.zeros((B, T), jnp.int32)
    if mask.k_segments is not None:
      borders = mask.k_segments[:, 1:] != mask.k_segments[:, :-1]
      segment_ids += jnp.pad(jnp.cumsum(borders, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
    tokens = self._tokens(params, q, k, v, call.x, valid)._replace(segment_ids=segment_ids)
    state = jnp.zeros((B, *tokens.k.shape[2:], v.shape[3]), logits_dtype(q, k, v))
    out = scan(tokens, state, self.chunk)[0]
    if not mask.causal:
      backward = jax.tree.map(lambda array: jnp.flip(array, axis=1), tokens)
      out += jnp.flip(scan(backward, state, self.chunk, read_after_write=False)[0], axis=1)
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
    kernel, bias = (local_heads(params[name], k.shape[2], axis) for name, axis in (("kernel", 1), ("bias", 0)))
    return jnp.tensordot(x.astype(k.dtype), kernel.astype(k.dtype), axes=1) + bias.astype(k.dtype)[None, None]

  def _tokens(self, params: Params, q: Array, k: Array, v: Array, x: Any, valid: Array | None) -> Tokens:
    """The engine's tokens, in one segment; tokens that are not valid do nothing."""
    (B, T), K = q.shape[:2], k.shape[2]
    dtype = logits_dtype(q, k, v)
    gates = self.gates(params, k.astype(dtype), x)
    log_decay = jnp.zeros((1, 1, K, 1), dtype) if gates.log_decay is None else gates.log_decay
    log_decay = jnp.broadcast_to(log_decay, (B, T, *log_decay.shape[2:]))

    def seen(array: Array) -> Array:
      return array if valid is None else jnp.where(valid[:, :, None, None], array, 0.0)

    beta = None if gates.beta is None else seen(gates.beta[..., None])
    segment_ids = jnp.zeros((B, T), jnp.int32)
    return Tokens(q, seen(gates.k), seen(v), seen(log_decay), beta, segment_ids)


def mamba2_init(key: Array, heads: int) -> dict[str, Array]:
  """Rates A with exp(A) uniform in `MAMBA2_RATES` and biases b with softplus(b) log-uniform in `MAMBA2_STEPS`."""
  rates, steps = jax.random.split(key)
  low, high = map(math.log, MAMBA2_STEPS)
  step = jnp.exp(jax.random.uniform(steps, (heads,), minval=low, maxval=high))
  rate = jax.random.uniform(rates, (heads,), minval=MAMBA2_RATES[0], maxval=MAMBA2_RATES[1])
  return {"bias": jnp.log(jnp.expm1(step)), "rate": jnp.log(rate)}
