"""Attention functions from outside: sound ones, and Long Range Arena's six as they were released, in our own words."""

import jax
import jax.numpy as jnp
import numpy as np


def numpy_softmax(q, k, v, mask=None):
  """Softmax attention in NumPy, example by example."""
  out = np.zeros((*q.shape[:3], v.shape[3]))
  for b, n in np.ndindex(q.shape[0], q.shape[2]):
    logits = q[b, :, n] @ k[b, :, n].T / np.sqrt(q.shape[3])
    if mask is not None:
      logits[~mask[b, n]] = -np.inf
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    out[b, :, n] = weights / weights.sum(axis=-1, keepdims=True) @ v[b, :, n]
  return out


def numpy_linear(q, k, v):
  """Linear attention in NumPy, without a mask."""
  q, k = (np.where(array > 0, array + 1, np.exp(np.minimum(array, 0))) for array in (q, k))
  out = np.einsum("btnh,bsnh,bsnv->btnv", q, k, v)
  return out / (np.einsum("btnh,bsnh->btn", q, k)[..., None] + 1e-6)


numpy_linear.claims = {"exactness": "other"}


def causal_flag(query, key, value, is_causal=False):
  """Softmax with a flag and no mask."""
  logits = jnp.einsum("btnh,bsnh->bnts", query, key) / query.shape[3] ** 0.5
  if is_causal:
    logits = jnp.where(jnp.tri(*logits.shape[2:], dtype=bool), logits, -jnp.inf)
  return jnp.einsum("bnts,bsnv->btnv", jax.nn.softmax(logits), value)


causal_flag.claims = {"cross": False}


def padded_tokens(q, k, mask):
  """`B S`: the tokens that some query may read."""
  return jnp.ones(k.shape[:2], bool) if mask is None else mask.any(axis=(1, 2))


def softmax(logits, readable, v):
  weights = jax.nn.softmax(jnp.where(readable, logits, -1e9)) * readable
  return jnp.einsum("bnts,bsnv->btnv", weights, v)


def strides(length, block):
  """The block of each token as a reshape to (block, blocks) makes it, where (blocks, block) is meant."""
  return jnp.arange(length) % -(-length // block)


def arena_local(q, k, v, mask=None, block=3):
  """Local attention in blocks, which a reshape in the wrong order spreads over the sequence."""
  blocks = strides(k.shape[1], block)
  readable = (blocks[:, None] == blocks[None])[None, None] & padded_tokens(q, k, mask)[:, None, None]
  return softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[3] ** -0.5, readable, v)


def arena_sinkhorn(q, k, v, mask=None, block=3):
  """Sinkhorn attention whose sort is contracted away, its two axes having two names: a block reads the sum of all."""
  readable = jnp.broadcast_to(
    padded_tokens(q, k, mask)[:, None, None], (q.shape[0], q.shape[2], q.shape[1], k.shape[1])
  )
  return softmax(jnp.einsum("btnh,bsnh->bnts", q, k), readable, v)


def local(q, k, v, mask=None, block=3):
  """Local attention in blocks with the right reshape."""
  blocks = jnp.arange(k.shape[1]) // block
  readable = (blocks[:, None] == blocks[None])[None, None] & padded_tokens(q, k, mask)[:, None, None]
  return softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[3] ** -0.5, readable, v)


def sinkhorn(q, k, v, mask=None, block=3):
  """Sinkhorn attention with a hard sort, as `sinkhorn_oracle` has it."""
  blocks, count = jnp.arange(k.shape[1]) // block, -(-k.shape[1] // block)
  tokens = padded_tokens(q, k, mask)
  members = jax.nn.one_hot(blocks, count, dtype=k.dtype) * tokens[:, :, None]
  scores = jnp.einsum("bsnh,bsm,hl->bnml", k, members, jnp.asarray(SORT[: k.shape[3], :count], k.dtype))
  scores = jnp.where((members.sum(axis=1) > 0)[:, None, None], scores, -jnp.inf)
  chosen = jnp.argmax(scores, axis=-1)[:, :, blocks]
  readable = (chosen[..., None] == blocks) | (blocks[:, None] == blocks)
  return softmax(jnp.einsum("btnh,bsnh->bnts", q, k), readable & tokens[:, None, None], v)


SORT = np.random.default_rng(0).normal(size=(8, 64)).astype(np.float32)  # H x blocks


def sinkhorn_oracle(variant, params, example, block=3):
  """Sinkhorn attention with a hard sort: a block reads itself and the one that the sum of its keys is mapped to."""
  del variant, params
  T, N, _ = example.q.shape
  out = np.zeros((T, N, example.v.shape[2]))
  for n, t in np.ndindex(N, T):
    seen = [s for s in range(T) if example.readable[n, :, s].any()]
    total = sum((example.k[s, n] for s in seen if s // block == t // block), start=np.zeros(example.k.shape[2]))
    blocks = sorted({s // block for s in seen})
    chosen = max(blocks, key=lambda b: float(total @ SORT[: len(total), b]), default=0)
    read = [s for s in seen if example.readable[n, t, s] and s // block in (t // block, chosen)]
    if read:
      weights = np.exp(example.k[read, n] @ example.q[t, n])
      out[t, n] = weights @ example.v[read, n] / weights.sum()
  return out


def arena_linear(q, k, v, mask=None):
  """Linear attention that makes the error of an unsupported padding mask, and never raises it."""
  error = None if mask is None else NotImplementedError("padding")
  del error
  q, k = jax.nn.elu(q) + 1, jax.nn.elu(k) + 1
  total = jnp.einsum("btnh,bnh->btn", q, k.sum(axis=1))
  return jnp.einsum("btnh,bsnh,bsnv->btnv", q, k, v) / total[..., None]


def arena_linformer(q, k, v, mask=None, rank=3):
  """Linformer with random projections: does it care about masks?"""
  project = jnp.asarray(np.random.default_rng(0).normal(size=(k.shape[1], rank)), k.dtype)
  k, v = (jnp.einsum("bsnh,sr->brnh", array, project) for array in (k, v))
  logits = jnp.einsum("btnh,brnh->bntr", q, k) * q.shape[3] ** -0.5
  return jnp.einsum("bntr,brnv->btnv", jax.nn.softmax(logits), v)


def arena_reformer(q, k, v, mask=None):
  """LSH attention without a path for masks, its logits times √H."""
  project = jnp.asarray(np.random.default_rng(0).normal(size=(q.shape[3], 2)), q.dtype)
  hashes = [jnp.argmax(jnp.concatenate([a @ project, -a @ project], axis=-1), axis=-1) for a in (q, k)]
  same = jnp.swapaxes(hashes[0], 1, 2)[..., None] == jnp.swapaxes(hashes[1], 1, 2)[:, :, None]
  return softmax(jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[3] ** 0.5, same, v)


def arena_performer(q, k, v, mask=None, bias=None):
  """Performer, whose bias is accepted and never used."""
  project = jnp.asarray(np.random.default_rng(0).normal(size=(q.shape[3], 16)), q.dtype)

  def features(x):
    x = x * q.shape[3] ** -0.25
    return jnp.exp(jnp.clip(x @ project - jnp.sum(x**2, axis=-1, keepdims=True) / 2, -60, 60)) + 1e-6

  q, k = features(q), features(k)
  total = jnp.einsum("btnm,bsnm->btn", q, k)
  return jnp.einsum("btnm,bsnm,bsnv->btnv", q, k, v) / total[..., None]


ARENA = {"masks": ("q_valid", "kv_valid"), "cross": False, "decode": False, "exactness": "other", "per_query": False}
for function in (
  local,
  sinkhorn,
  arena_local,
  arena_sinkhorn,
  arena_linear,
  arena_linformer,
  arena_reformer,
  arena_performer,
):
  function.claims = ARENA
local.pattern = arena_local.pattern = lambda i, j: i // 3 == j // 3
