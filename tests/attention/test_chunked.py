"""The block engine: any cut gives the same numbers, and memory and work are those of the blocks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import compiled
from attention_lab.attention import CAUSAL, FULL, Dims, Mask, Positions, spec
from attention_lab.attention.engines import chunked
from attention_lab.attention.engines.flash import tiles

B, T, N, K, H, V = 2, 21, 4, 2, 8, 6
SEGMENTS = jnp.asarray(np.repeat([[0, 1, 2], [5, 5, 7]], 7, axis=1))
VALID = jnp.asarray(np.random.default_rng(0).random((B, T)) < 0.7)
EXPLICIT = jnp.asarray(np.random.default_rng(1).random((B, N, T, T)) < 0.5)
MASKS = {
  "full": FULL,
  "causal": CAUSAL,
  "window": Mask(window=(3, 2)),
  "causal window": Mask(causal=True, window=4),
  "prefix": Mask(causal=True, prefix=jnp.asarray([9, 4])),
  "padding": Mask(q_valid=VALID, kv_valid=VALID),
  "segments": Mask(causal=True, q_segments=SEGMENTS, k_segments=SEGMENTS),
  "window and segments": Mask(window=3, q_segments=SEGMENTS, k_segments=SEGMENTS, kv_valid=VALID),
  "explicit": Mask(explicit=EXPLICIT),
  "one row for all": Mask(causal=True, explicit=EXPLICIT[:1, :1, :1]),
}


def inputs(T=T, S=T, dtype=jnp.float32):
  keys = jax.random.split(jax.random.key(0), 3)
  shapes = ((B, T, N, H), (B, S, K, H), (B, S, K, V))
  return [jax.random.normal(key, shape, dtype) for key, shape in zip(keys, shapes, strict=True)]


@pytest.fixture
def shrink(monkeypatch):
  """Makes blocks and tiles hold a few queries and keys."""

  def apply():
    sizes = {chunked: {"BLOCK_QUERIES": 4, "WINDOW_BLOCK_MIN": 2, "MAX_LOGITS": 64}}
    sizes[tiles] = {"MAX_TILE": 8, "WINDOW_TILE_MAX": 4, "WINDOW_TILE_MIN": 2, "MAX_LOGITS": 64}
    for module, values in sizes.items():
      for name, size in values.items():
        monkeypatch.setattr(module, name, size)

  return apply


def run(variant, arrays, **demands):
  params = variant.init(jax.random.key(1), Dims(N * H, N, K, H, V, 64))
  params = jax.tree.map(lambda leaf: leaf + 0.1, params)

  def loss(*arrays):
    out = variant(params, *arrays, **demands)
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out

  (_, out), grads = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
  return out, *grads


OTHERS = ["alibi", "relative(clip=2)", "talking_heads", "local(window=3)"]
EVERYDAY = [("softmax", mask) for mask in MASKS] + [(name, "window and segments") for name in OTHERS]
REST = [pytest.param(name, mask, marks=pytest.mark.long) for name in OTHERS for mask in MASKS]


@pytest.mark.parametrize(("name", "mask"), EVERYDAY + REST)
def test_any_cut_gives_the_same_output_and_gradients(name, mask, shrink):
  variant, arrays, caller_mask = spec.parse(name), inputs(), MASKS[mask]
  expected = run(variant, arrays, mask=caller_mask)
  shrink()
  for actual, wanted in zip(run(variant, arrays, mask=caller_mask), expected, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=2e-5)


@pytest.mark.parametrize("shape", [(B, N, T, T), (1, N, 1, T), (B, 1, T, 1)])
def test_a_bias_of_any_broadcast_shape_gets_its_gradient_from_every_block(shape, shrink):
  softmax, (q, k, v), bias = spec.parse("softmax"), inputs(), jax.random.normal(jax.random.key(2), shape)

  def loss(bias):
    return jnp.sum(softmax({}, q, k, v, bias=bias, mask=CAUSAL) ** 2)

  expected = jax.jit(jax.grad(loss))(bias)
  shrink()
  np.testing.assert_allclose(jax.jit(jax.grad(loss))(bias), expected, atol=2e-5)


@pytest.mark.parametrize("name", ["softmax", "fox"])
def test_a_bias_hides_keys_as_a_mask_does_and_shifts_whole_rows_in_every_tile(name, shrink):
  variant, arrays = spec.parse(name), inputs()
  x = jax.random.normal(jax.random.key(4), (B, T, N * H))
  seen = (jnp.arange(T)[None] % 3 != 1) | (jnp.arange(T)[:, None] % 5 == 0)
  seen = jnp.broadcast_to(seen.at[7].set(False), (B, N, T, T))
  shift = jnp.where(jnp.arange(T) % 4 == 0, -1e9, 0.0)[:, None]
  shrink()
  expected = run(variant, arrays, mask=CAUSAL, bias=jnp.where(seen, 0.0, -jnp.inf), x=x)
  shifted = run(variant, arrays, mask=CAUSAL, bias=jnp.where(seen, shift, -jnp.inf), x=x)
  for actual, wanted in zip(shifted, expected, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=2e-5)
  assert not np.any(expected[0][:, 7])
  if name != "fox":
    masked = run(variant, arrays, mask=CAUSAL & Mask(explicit=seen), x=x)
    for actual, wanted in zip(expected, masked, strict=True):
      np.testing.assert_allclose(actual, wanted, atol=2e-5)


@pytest.mark.parametrize("S", [5, 30])
@pytest.mark.parametrize("mask", [CAUSAL, Mask(window=3)])
def test_queries_and_keys_may_differ_in_number(S, mask, shrink):
  softmax, arrays = spec.parse("softmax"), inputs(T, S)
  expected = run(softmax, arrays, mask=mask)
  shrink()
  for actual, wanted in zip(run(softmax, arrays, mask=mask), expected, strict=True):
    np.testing.assert_allclose(actual, wanted, atol=2e-5)


def test_given_positions_decide_and_not_the_order_of_the_array(shrink):
  q, k, v = inputs()
  order = jax.random.permutation(jax.random.key(3), T)
  expected = spec.parse("alibi")
  params = expected.init(jax.random.key(1), Dims(N * H, N, K, H, V, 64))
  straight = expected(params, q, k, v, mask=CAUSAL)
  shrink()
  shuffled = expected(params, q, k[:, order], v[:, order], mask=CAUSAL, positions=Positions(k=order[None]))
  np.testing.assert_allclose(shuffled, straight, atol=2e-5)


def naive(q, k, v, mask):
  logits = jnp.einsum("btnh,bsnh->bnts", q, k) * q.shape[-1] ** -0.5
  logits = jnp.where(mask.dense(q.shape[1], k.shape[1]), logits, -1e30)
  return jnp.einsum("bnts,bsnv->btnv", jax.nn.softmax(logits), v)


LONG = [jax.ShapeDtypeStruct((1, 4096, 8, 64), jnp.float32)] * 3


def temporaries(function, T=4096):
  arrays = [jax.ShapeDtypeStruct((1, T, 8, 64), jnp.float32)] * 3
  return compiled.memory(jax.jit(function).lower(*arrays).compile())["temporaries"]


def test_memory_is_a_twentieth_of_the_naive_forms_and_no_buffer_is_quadratic():
  softmax = spec.parse("softmax")
  ours = jax.jit(lambda q, k, v: softmax({}, q, k, v)).lower(*LONG).compile()
  assert compiled.memory(ours)["temporaries"] * 20 < temporaries(lambda q, k, v: naive(q, k, v, FULL))
  assert "4096,4096" not in ours.as_text()


@pytest.mark.parametrize("mask", [FULL, CAUSAL], ids=["full", "causal"])
def test_the_backward_pass_computes_logits_again_and_stores_none(mask):
  softmax = spec.parse("softmax")
  grad = jax.grad(lambda q, k, v: jnp.sum(softmax({}, q, k, v, mask=mask)), argnums=(0, 1, 2))
  program = jax.jit(grad).lower(*LONG).compile()
  assert "4096,4096" not in program.as_text()
  assert compiled.memory(program)["temporaries"] <= 64 * 2**20


def test_under_a_window_the_temporaries_do_not_grow_with_the_length():
  local = spec.parse("local(window=256)")
  sizes = [temporaries(lambda q, k, v: local({}, q, k, v, mask=CAUSAL), T) for T in (2048, 8192)]
  assert sizes[1] <= 1.1 * sizes[0]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_step_of_decoding_copies_no_cache(batch):
  softmax, dims = spec.parse("softmax"), Dims(128, 2, 2, 64, 64, 4104)
  state = jax.eval_shape(lambda: softmax.init_state(batch, dims, jnp.float32))
  token = jax.ShapeDtypeStruct((batch, 1, 2, 64), jnp.float32)
  step = jax.jit(lambda state, q, k, v: softmax.extend({}, state, q, k, v), donate_argnums=0)
  cost = compiled.memory(step.lower(state, token, token, token).compile())
  assert cost["temporaries"] < 0.25 * state["k"].size * 4
  assert cost["outputs"] + cost["arguments"] - cost["peak"] + cost["temporaries"] >= 2 * state["k"].size * 4  # donated


def test_blocks_that_a_mask_empties_are_not_computed():
  softmax = spec.parse("softmax")

  def work(mask, T):
    shapes = [jax.ShapeDtypeStruct((1, T, 2, 16), jnp.float32)] * 3
    return compiled.flops(lambda q, k, v: softmax({}, q, k, v, mask=mask), *shapes)

  assert work(CAUSAL, 4096) < 0.65 * work(FULL, 4096)
  assert work(Mask(window=64), 4096) < 2.2 * work(Mask(window=64), 2048)
  assert work(Mask(causal=True, window=64), 4096) < 0.1 * work(FULL, 4096)


def test_gradients_equal_those_of_the_naive_form():
  shapes = (1, 700, 2, 16)
  q, k, v = (jax.random.normal(jax.random.key(seed), shapes) for seed in range(3))
  softmax = spec.parse("softmax")

  def gradients(attend):
    return jax.jit(jax.grad(lambda *arrays: jnp.sum(attend(*arrays) ** 2), argnums=(0, 1, 2)))(q, k, v)

  for mask in (FULL, CAUSAL):
    ours = gradients(lambda *arrays, mask=mask: softmax({}, *arrays, mask=mask))
    theirs = gradients(lambda *arrays, mask=mask: naive(*arrays, mask))
    for actual, wanted in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(actual, wanted, atol=1e-5)
