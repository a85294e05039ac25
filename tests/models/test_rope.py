"""Rotations of queries and keys: along a sequence, scaled to longer ones, and on grids."""

import cmath
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attention_lab.attention.base import Unsupported
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.position_specs import parse
from attention_lab.models.rope import Rope, Rope2d, rotate

H = 16
YARN = "rope(scaling='yarn', factor=4.0, length=1024)"
SPECS = ["rope", "rope(scaling='ntk', factor=3.0)", YARN, "rope(fraction=0.5, base=50.0)"]
Q, K = jax.random.normal(jax.random.key(0), (2, 1, 6, 2, H))
PLACES = Positions(q=jnp.array([[0, 1, 5, 17, 40, 90]]))
TURNED = {text: jax.jit(lambda x, at, code=parse(text)[0]: code(x, Positions(q=at))) for text in SPECS}
IMAGE = {extra: jax.jit(lambda x, e=extra: Rope2d()(x, Positions(grid=(2, 3), extra=e))) for extra in (0, 1, 2)}


def test_rope_equals_a_product_of_complex_numbers():
  angles = np.arange(6)[:, None] * 50.0 ** (-np.arange(8) / 8)
  q = np.asarray(Q)
  turned = (q[..., :8] + 1j * q[..., 8:]) * np.exp(1j * angles)[None, :, None]
  expected = np.concatenate([turned.real, turned.imag], axis=-1)
  np.testing.assert_allclose(Rope(base=50.0)(Q, Positions()), expected, atol=1e-5)


def test_linear_scaling_by_a_factor_is_plain_rope_at_positions_over_it():
  scaled, plain = Rope(scaling="linear", factor=4.0), Rope()
  quarters = Positions(q=4 * jnp.arange(6)[None] + jnp.array([[0, 8, 0, 4, 0, 400]]))
  whole = Positions(q=jnp.arange(6)[None] + jnp.array([[0, 2, 0, 1, 0, 100]]))
  np.testing.assert_allclose(scaled(Q, quarters), plain(Q, whole), atol=1e-5)
  angles = scaled.angles(Positions(q=jnp.array([[3]])), 1, H)
  np.testing.assert_allclose(angles, 0.75 * plain.angles(Positions(q=jnp.array([[1]])), 1, H), rtol=1e-6)


@pytest.mark.parametrize("text", ["scaling='linear'", "scaling='ntk'", "scaling='yarn', length=7"])
def test_a_factor_of_one_changes_nothing(text):
  np.testing.assert_allclose(parse(f"rope({text})")[0](Q, PLACES), Rope()(Q, PLACES), atol=1e-6)


def test_ntk_leaves_the_fastest_pair_alone_and_interpolates_the_slowest_as_linear_does():
  ratio = np.asarray(Rope(scaling="ntk", factor=4.0).speeds(H) / Rope().speeds(H))
  assert ratio[0] == 1
  np.testing.assert_allclose(ratio[-1], 1 / 4, rtol=1e-5)
  assert (np.diff(ratio) < 0).all()
  base = 10_000.0 * 4.0 ** (H / (H - 2))
  np.testing.assert_allclose(Rope(scaling="ntk", factor=4.0).speeds(H)[3], base ** (-2 * 3 / H), rtol=1e-5)


def yarn(q, k, m, n, *, base, factor, length, alpha=1.0, beta=32.0):
  """The logit's inner product q·k / t of one query at m and one key at n, as the paper writes it, in float64."""
  width, total, parts = len(q), 0.0, set()
  for d in range(width // 2):
    theta = base ** (-2 * d / width)
    wavelength = 2 * math.pi / theta
    r = length / wavelength
    if r < alpha:
      gamma = 0.0
    elif r > beta:
      gamma = 1.0
    else:
      gamma = (r - alpha) / (beta - alpha)
    parts.add("ramp" if 0 < gamma < 1 else gamma)
    h = (1 - gamma) * theta / factor + gamma * theta
    a, b = complex(q[d], q[d + width // 2]), complex(k[d], k[d + width // 2])
    turned_a, turned_b = a * cmath.exp(1j * m * h), b * cmath.exp(1j * n * h)
    total += turned_a.real * turned_b.real + turned_a.imag * turned_b.imag
  inverse_root_t = 0.1 * math.log(factor) + 1
  return total * inverse_root_t**2, parts


@pytest.mark.parametrize(
  "base, length, expected",
  [(10_000.0, 1024, {0.0, "ramp", 1.0}), (100.0, 24, {0.0, "ramp"}), (100.0, 4096, {"ramp", 1.0})],
)
def test_yarn_equals_the_papers_equations(base, length, expected):
  fields = {"base": base, "factor": 4.0, "length": length}
  code, at = Rope(scaling="yarn", **fields), np.asarray(PLACES.q)[0]
  q, k = np.asarray(code(Q, PLACES), np.float64), np.asarray(code(K, PLACES), np.float64)
  for i, j in ((0, 0), (2, 1), (1, 4), (5, 3)):
    logit, parts = yarn(np.asarray(Q[0, i, 1], float), np.asarray(K[0, j, 1], float), int(at[i]), int(at[j]), **fields)
    assert parts == expected
    np.testing.assert_allclose(q[0, i, 1] @ k[0, j, 1], logit, atol=2e-4)


@pytest.mark.parametrize("text", SPECS)
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 300), st.integers(0, 5))
def test_products_of_queries_and_keys_depend_on_the_distance_alone(text, i, j, step, row):
  def product(i, j):
    q, k = (TURNED[text](x[:, row : row + 1], jnp.array([[at]])) for x, at in ((Q, i), (K, j)))
    return np.sum(np.asarray(q) * np.asarray(k))

  np.testing.assert_allclose(product(i, j), product(i + step, j + step), atol=5e-3)


def test_the_distance_does_change_the_product():
  products = [np.vdot(TURNED["rope"](Q[:, :1], jnp.array([[i]])), K[:, :1]) for i in range(4)]
  assert len(np.unique(np.round(products, 3))) == 4


@pytest.mark.parametrize("fraction, channels", [(0.25, 4), (0.5, 8), (1.0, 16)])
def test_a_fraction_turns_the_first_channels_as_a_narrower_head_and_leaves_the_rest_untouched(fraction, channels):
  turned = np.asarray(Rope(fraction=fraction)(Q, PLACES))
  np.testing.assert_array_equal(turned[..., channels:], Q[..., channels:])
  np.testing.assert_array_equal(turned[..., :channels], Rope()(Q[..., :channels], PLACES))
  assert (np.abs(turned - Q)[:, 1:, :, :channels].max(axis=(0, 2)) > 1e-6).all()


def test_a_fraction_of_channels_is_scaled_as_a_whole_by_yarns_temperature():
  code = Rope(scaling="yarn", factor=4.0, length=8, fraction=0.5)
  np.testing.assert_allclose(code(Q, PLACES)[..., 8:], Q[..., 8:] * (0.1 * math.log(4.0) + 1), rtol=1e-6)


@pytest.mark.parametrize("extra", [0, 2])
def test_products_on_a_grid_depend_on_the_steps_between_rows_and_between_columns_alone(extra):
  q, k = (np.asarray(IMAGE[extra](jnp.broadcast_to(x[:, :1, :1], (1, 6 + extra, 1, H))))[0, :, 0] for x in (Q, K))
  products = {}
  for i in range(6):
    for j in range(6):
      step = i // 3 - j // 3, i % 3 - j % 3
      products.setdefault(step, []).append(q[extra + i] @ k[extra + j])
  assert len(products) == 15
  for same in products.values():
    np.testing.assert_allclose(same, same[0], atol=1e-4)
  assert len({round(float(same[0]), 3) for same in products.values()}) == 15


def test_half_of_the_pairs_turn_by_the_row_and_half_by_the_column():
  angles = np.asarray(Rope2d().angles(Positions(grid=(2, 3), extra=1), 7, H))[0]
  speeds = 100.0 ** (-np.arange(4) / 4)
  for position in range(6):
    expected = np.concatenate([position // 3 * speeds, position % 3 * speeds])
    np.testing.assert_allclose(angles[1 + position], expected, atol=1e-6)


@pytest.mark.parametrize("extra", [1, 2])
def test_tokens_before_the_grid_do_not_turn_and_do_not_move_it(extra):
  x = jnp.concatenate([K[:, :extra], Q], axis=1)
  turned = np.asarray(IMAGE[extra](x))
  np.testing.assert_array_equal(turned[:, :extra], K[:, :extra])
  np.testing.assert_array_equal(turned[:, extra:], IMAGE[0](Q))


def test_rows_and_columns_without_a_grid_are_refused_by_name():
  with pytest.raises(Unsupported, match="rope2d needs tokens on a grid of rows and columns, which text and decoding"):
    Rope2d()(Q, Positions())


def test_turning_keeps_the_dtype_and_computes_in_float32():
  low = rotate(Q.astype(jnp.bfloat16), Rope().angles(PLACES, 6, H))
  assert low.dtype == jnp.bfloat16
  exact = Rope()(Q.astype(jnp.bfloat16).astype(jnp.float32), PLACES)
  np.testing.assert_array_equal(low, exact.astype(jnp.bfloat16))


def test_decoding_with_yarn_gives_the_logits_of_one_call(filled):
  config = ModelConfig(
    positions="rope(scaling='yarn', factor=4.0, length=3, fraction=0.5)", width=16, heads=2, layers=1
  )
  model, plain = (
    functional(lambda key, c=c: TransformerLM(c, 11, 12, key=key))
    for c in (config, ModelConfig(width=16, heads=2, layers=1))
  )
  params = filled(model)
  extend = jax.jit(lambda *args: model.bind(params).extend(*args))
  tokens, lengths = jax.random.randint(jax.random.key(1), (2, 9), 0, 11), jnp.array([3, 4])
  whole = jax.jit(model.apply)(params, tokens).logits
  state, first = extend(tokens[:, :4], model.bind(params).init_state(2), lengths)
  rest = jnp.stack([tokens[0, 3:8], tokens[1, 4:9]])
  state, then = extend(rest, state)
  for row, start in enumerate((3, 4)):
    np.testing.assert_allclose(first[row, :start], whole[row, :start], atol=1e-5)
    np.testing.assert_allclose(then[row], whole[row, start : start + 5], atol=1e-5)
  assert not np.allclose(whole, jax.jit(plain.apply)(params, tokens).logits, atol=1e-3)
