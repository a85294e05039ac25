"""Patterns cost what they read, and skipping what they do not read changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import compiled, mesh
from attention_lab.attention import CAUSAL, FULL, Call, Dims, Mask, Positions, sharded, spec
from attention_lab.attention.engines.flash import tiles

B, T, N, K, H, V = 2, 61, 2, 1, 4, 3
RNG = np.random.default_rng(0)
SEGMENTS = jnp.asarray(np.sort(RNG.integers(0, 3, (B, T)), axis=1))
VALID = jnp.asarray(RNG.random((B, T)) < 0.8)
BIAS = jnp.asarray(RNG.normal(size=(1, N, T, T)), jnp.float32)
MASKS = {
  "full": FULL,
  "causal": CAUSAL,
  "prefix": Mask(causal=True, prefix=jnp.asarray([20, 4])),
  "window": Mask(window=(30, 7)),
  "packed": Mask(causal=True, q_segments=SEGMENTS, k_segments=SEGMENTS, kv_valid=VALID, q_valid=VALID),
  "explicit": Mask(explicit=jnp.asarray(RNG.random((B, 1, T, T)) < 0.5)),
  "one row for all": Mask(causal=True, window=40, explicit=jnp.asarray(RNG.random((1, N, 1, T)) < 0.5)),
}
SPECS = [
  "bigbird(block=2, window=1, global_blocks=1, random=3)",
  "longformer(window=2, global_tokens=1)",
  "sparse_strided(stride=3)",
  "sparse_fixed(stride=4, expressivity=1)",
  "axial(columns=4)",
  "divided_space_time(tokens=4)",
]
EVERYDAY = [(name, mask) for name in SPECS for mask in ("causal", "packed", "explicit")]
REST = [
  pytest.param(name, mask, marks=pytest.mark.long) for name in SPECS for mask in MASKS if (name, mask) not in EVERYDAY
]


@pytest.fixture
def shrunk(monkeypatch):
  """Tiles of a few queries and keys."""
  for name, size in {
    "MAX_TILE": 16,
    "WINDOW_TILE_MAX": 4,
    "WINDOW_TILE_MIN": 2,
    "MAX_LOGITS": 256,
    "SPARSE_TILE": 4,
  }.items():
    monkeypatch.setattr(tiles, name, size)


def inputs(T=T, S=T):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, V))
  return [jax.random.normal(key, shape) for key, shape in zip(keys, shapes, strict=True)]


def parameters(variant, length=80):
  """BigBird's drawn blocks repeat each other, the window and the global block, and lie beyond the keys."""
  params = variant.init(jax.random.key(1), Dims(N * H, N, K, H, V, length))
  if not params:
    return {}
  blocks = params["fixed"]["blocks"]
  return {
    "fixed": {"blocks": blocks.at[5].set(9).at[6].set(jnp.asarray([6, 20, 20])).at[7].set(jnp.asarray([0, 39, 8]))}
  }


def dense(variant, params, q, k, v, mask, bias):
  """Every pair, one by one."""
  T, S = q.shape[1], k.shape[1]
  pattern = variant.pattern(params, jnp.arange(T)[:, None], jnp.arange(S)[None])
  readable = mask.dense(T, S) & pattern[None, None]
  k, v = (jnp.repeat(array, N // K, axis=2) for array in (k, v))
  logits = jnp.einsum("btnh,bsnh->bnts", q, k) * H**-0.5 + bias
  weights = jax.nn.softmax(logits, axis=-1, where=readable)
  return jnp.einsum("bnts,bsnv->btnv", jnp.where(readable, weights, 0.0), v)


def with_gradients(function, *arrays):
  def loss(*arrays):
    out = function(*arrays)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out

  (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=range(len(arrays)), has_aux=True))(*arrays)
  return out, *grads


@pytest.mark.parametrize(("name", "mask"), EVERYDAY + REST)
@pytest.mark.usefixtures("shrunk")
def test_skipping_changes_neither_outputs_nor_gradients(name, mask):
  variant, caller_mask = spec.parse(name), MASKS[mask]
  params, arrays = parameters(variant), (*inputs(), BIAS)
  ours = with_gradients(lambda q, k, v, bias: variant(params, q, k, v, mask=caller_mask, bias=bias), *arrays)
  theirs = with_gradients(lambda q, k, v, bias: dense(variant, params, q, k, v, caller_mask, bias), *arrays)
  for actual, wanted in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=2e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.usefixtures("shrunk")
def test_a_bias_that_shifts_a_whole_row_changes_neither_near_nor_far_keys(name):
  variant, arrays = spec.parse(name), inputs()
  params, shift = parameters(variant), jnp.where(jnp.arange(T) % 3 == 0, -1e9, 0.0)[None, None, :, None]
  hidden = jnp.where(jnp.arange(T) % 7 == 2, -jnp.inf, 0.0)[None, None, None]
  ours = jax.jit(lambda q, k, v, bias: variant(params, q, k, v, bias=bias))(*arrays, hidden + shift)
  np.testing.assert_allclose(ours, dense(variant, params, *arrays, FULL, hidden), atol=2e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.usefixtures("shrunk")
def test_more_keys_than_queries_change_nothing(name):
  variant, (q, k, v) = spec.parse(name), inputs(T=50, S=67)
  params = parameters(variant)
  ours = jax.jit(lambda *arrays: variant(params, *arrays))(q, k, v)
  np.testing.assert_allclose(ours, dense(variant, params, q, k, v, FULL, 0.0), atol=2e-5)


@pytest.mark.usefixtures("shrunk")
def test_drawn_blocks_beyond_the_last_key_are_not_read():
  variant, (q, k, v) = spec.parse("bigbird(block=2, window=1, global_blocks=0, random=3)"), inputs(T=60, S=60)
  params = {"fixed": {"blocks": jnp.full((40, 3), 30).at[::2, 0].set(3)}}
  ours = jax.jit(lambda *arrays: variant(params, *arrays))(q, k, v)
  np.testing.assert_allclose(ours, dense(variant, params, q, k, v, FULL, 0.0), atol=2e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.usefixtures("shrunk")
def test_positions_that_are_not_known_are_a_masked_map_of_the_same_numbers(name):
  variant, arrays = spec.parse(name), inputs()
  params, positions = parameters(variant), Positions(q=jnp.arange(T)[None], k=jnp.arange(T)[None])
  known = lambda *arrays: variant(params, *arrays, mask=CAUSAL)
  masked = lambda *arrays: variant(params, *arrays, mask=CAUSAL, positions=positions)
  assert compiled.flops(known, *arrays) < 0.8 * compiled.flops(masked, *arrays)
  np.testing.assert_allclose(jax.jit(known)(*arrays), jax.jit(masked)(*arrays), atol=2e-5)


def test_a_slot_without_a_key_is_not_read_whatever_the_mask():
  q, k, v = inputs(3, 3)
  softmax = spec.parse("softmax")
  out = softmax({}, q, k, v, positions=Positions(k=jnp.asarray([[0, 1, -1]])))
  np.testing.assert_allclose(out, softmax({}, q, k[:, :2], v[:, :2]), atol=1e-6)


def gradient(variant, mask):
  def run(params, q, k, v):
    return jax.grad(lambda *arrays: jnp.sum(variant(params, *arrays, mask=mask)), argnums=(0, 1, 2))(q, k, v)

  return run


def shapes(variant, length):
  arrays = [jax.ShapeDtypeStruct((1, length, 2, 16), jnp.float32)] * 3
  return jax.eval_shape(lambda: variant.init(jax.random.key(0), Dims(32, 2, 2, 16, 16, length))), *arrays


@pytest.mark.parametrize("mask", [FULL, CAUSAL])
@pytest.mark.parametrize("name", ["bigbird", "longformer"])
def test_forward_and_backward_work_grows_with_the_pattern(name, mask):
  variant, softmax = spec.parse(name), spec.parse("softmax")
  work = {length: compiled.flops(gradient(variant, mask), *shapes(variant, length)) for length in (2048, 4096)}
  assert work[4096] <= 2.2 * work[2048]
  assert 3 * work[4096] <= compiled.flops(gradient(softmax, FULL), *shapes(softmax, 4096))


@pytest.mark.parametrize(
  "name", ["sparse_strided", "sparse_fixed", "axial(columns=64)", "divided_space_time(tokens=64)"]
)
def test_a_pattern_of_two_parts_costs_a_quarter_of_the_map_at_most(name):
  variant, softmax = spec.parse(name), spec.parse("softmax")
  work = compiled.flops(gradient(variant, FULL), *shapes(variant, 4096))
  assert 4 * work <= compiled.flops(gradient(softmax, FULL), *shapes(softmax, 4096))


@pytest.mark.parametrize("name", ["bigbird", "longformer", "sparse_strided", "sparse_fixed"])
def test_the_gradient_holds_no_buffer_of_the_whole_map(name):
  variant = spec.parse(name)
  program = jax.jit(gradient(variant, CAUSAL)).lower(*shapes(variant, 4096)).compile()
  assert "4096,4096" not in program.as_text()
  assert compiled.memory(program)["temporaries"] < 4096**2


@pytest.mark.parametrize("name", ["bigbird(block=8)", "longformer(window=8)"])
def test_devices_that_split_the_batch_find_the_same_tiles(name):
  variant = spec.parse(name)
  q, k, v = (jax.random.normal(jax.random.key(seed), (2, 1024, 2, 4)) for seed in range(3))
  params, devices = parameters(variant, 1024), mesh.make_mesh(mesh.MeshConfig(data=2), jax.devices()[:2])
  split = jax.jit(lambda *arrays: sharded.attend(variant, params, *arrays, Call(CAUSAL), devices).out)(q, k, v)
  assert split.sharding.num_devices == 2
  np.testing.assert_allclose(split, variant(params, q, k, v, mask=CAUSAL), atol=2e-5)
