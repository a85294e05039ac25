"""Gathered blocks: the numbers of the masked map, forward and backward, for the cost of what is read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import compiled
from attention_lab.attention import CAUSAL, Call, Mask, Positions, spec
from attention_lab.attention.engines import block_sparse
from attention_lab.attention.engines.flash import tiles
from attention_lab.attention.families import sparse_support

B, T, N, K, H, V, BLOCK = 2, 37, 4, 2, 3, 5, 4
RNG = np.random.default_rng(0)
CHOSEN = np.argsort(RNG.random((B, N, T, -(-T // BLOCK))), axis=-1)[..., :3]
CHOSEN = np.where(RNG.random(CHOSEN.shape) < 0.3, -1, CHOSEN)
CHOSEN[:, 1, 5] = -1
VALID = RNG.random((B, T)) < 0.8
PLACES = Positions(q=jnp.arange(T)[None], k=jnp.arange(T)[None])
MASKS = {"causal": CAUSAL, "padding": Mask(causal=True, q_valid=jnp.asarray(VALID), kv_valid=jnp.asarray(VALID))}


def inputs():
  keys = jax.random.split(jax.random.key(0), 3)
  return [jax.random.normal(key, (B, T, *heads)) for key, heads in zip(keys, ((N, H), (K, H), (K, V)), strict=True)]


def with_gradients(function, *arrays):
  def loss(*arrays):
    out = function(*arrays)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out

  (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
  return out, *grads


def dense(q, k, v, causal):
  read = (CHOSEN[..., None] == np.arange(T) // BLOCK).any(axis=3) & VALID[:, None, None]
  read = read & np.tri(T, dtype=bool) if causal else read
  k, v = (jnp.repeat(array, N // K, axis=2) for array in (k, v))
  weights = jax.nn.softmax(jnp.einsum("btnh,bsnh->bnts", q, k), axis=-1, where=read)
  return jnp.einsum("bnts,bsnv->btnv", jnp.where(read, weights, 0.0), v)


@pytest.mark.parametrize("causal", [True, False])
def test_any_choice_of_blocks_gives_the_outputs_and_gradients_of_a_masked_map(causal, monkeypatch):
  monkeypatch.setattr(tiles, "MAX_LOGITS", 128)
  monkeypatch.setattr(block_sparse, "TILE_QUERIES", 3)
  form = block_sparse.BlockSparseConfig(BLOCK, 1.0, causal)
  ours = with_gradients(
    lambda *qkv: block_sparse.attend(*qkv, jnp.asarray(CHOSEN), jnp.asarray(VALID), form), *inputs()
  )
  theirs = with_gradients(lambda *qkv: dense(*qkv, causal), *inputs())
  for actual, wanted in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=1e-5)
  assert not ours[0][:, 5, 1].any()


@pytest.mark.parametrize(
  ("name", "mask"), [("moba(block=4, top_k=3)", "padding"), ("moba(block=4, top_k=1)", "causal")]
)
def test_gathered_blocks_equal_the_masked_map(name, mask):
  variant, masked = spec.parse(name), Call(MASKS[mask], PLACES)
  ours = with_gradients(lambda *qkv: variant({}, *qkv, mask=MASKS[mask]), *inputs())
  theirs = with_gradients(lambda *qkv: variant.attend({}, *qkv, masked), *inputs())
  for actual, wanted in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=1e-5)


def test_blocks_that_tie_are_all_read():
  variant, (q, k, v) = spec.parse("moba(block=4, top_k=3)"), inputs()
  out = jax.jit(lambda *qkv: variant({}, *qkv, mask=CAUSAL))(jnp.zeros_like(q), k, v)
  means = jnp.cumsum(v, axis=1) / jnp.arange(1, T + 1)[None, :, None, None]
  np.testing.assert_allclose(out, jnp.repeat(means, N // K, axis=2), atol=1e-5)


def test_places_of_the_largest_are_those_of_the_largest_and_ties_are_told():
  logits = jnp.asarray([[3.0, 1.0, 3.0, 2.0], [3.0, 1.0, 2.0, 1.0], [0.0, 5.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
  readable = jnp.asarray([[1, 1, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 1, 0]], bool)
  indices, tied = sparse_support.top_k_indices(logits, readable, 2)
  np.testing.assert_array_equal(indices, [[0, 2], [0, 2], [0, -1], [0, 1]])
  np.testing.assert_array_equal(tied, [False, False, False, True])


def test_work_and_memory_grow_with_the_blocks_read_and_hold_no_map():
  form = block_sparse.BlockSparseConfig(64, 1.0, True)

  def program(T):
    arrays = [jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)] * 3
    rest = [jax.ShapeDtypeStruct((1, 2, T, 3), jnp.int32), jax.ShapeDtypeStruct((1, T), jnp.bool_)]
    run = lambda *args: jax.grad(lambda *qkv: jnp.sum(block_sparse.attend(*qkv, *args[3:], form)), (0, 1, 2))(*args[:3])
    return run, *arrays, *rest

  work = {length: compiled.flops(*program(length)) for length in (2048, 8192)}
  assert work[8192] <= 4.2 * work[2048]
  run, *arguments = program(4096)
  executable = jax.jit(run).lower(*arguments).compile()
  assert "4096,4096" not in executable.as_text()
  assert compiled.memory(executable)["temporaries"] < 4096**2
