"""The rule for positions, and the codes themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.attention.base import Dims
from attention_lab.models.positions import check_widths, resolve, rope, rotates, sincos2d, sinusoidal


@pytest.mark.parametrize(
  "attention, comes_to",
  [
    ("softmax", "rope"),
    ("alibi", "none"),
    ("alibi|relative", "none"),
    ("softmax|alibi", "rope"),
    ("pooling", "learned"),
    ("fourier", "learned"),
    ("softmax|pooling", "rope+learned"),
    ("alibi|fourier", "learned"),
  ],
)
def test_auto_gives_each_layer_what_its_variant_needs(attention, comes_to):
  assert resolve("auto", spec.layers(attention, 2)) == comes_to


def test_rope_turns_only_layers_with_queries_and_keys_and_no_positions_of_their_own():
  turned = {
    name: rotates("rope+learned", spec.parse(name)) for name in ("softmax", "linear", "alibi", "pooling", "fourier")
  }
  assert turned == {"softmax": True, "linear": True, "alibi": False, "pooling": False, "fourier": False}
  assert not rotates("learned", spec.parse("softmax"))


@pytest.mark.parametrize(
  "given, attention, message",
  [
    ("lerned", "softmax", r"--config.model.positions=lerned is unknown, did you mean 'learned'\?; choices: auto, none"),
    ("rope", "softmax|pooling", "positions=rope turns queries and keys, and pooling lacks them"),
    ("rope", "alibi", "alibi has positions of its own"),
    ("sincos2d", "softmax", "sincos2d needs images"),
  ],
)
def test_what_cannot_be_done_is_refused_by_name(given, attention, message):
  with pytest.raises(ValueError, match=message):
    resolve(given, spec.layers(attention, 2))


@pytest.mark.parametrize(
  "resolved, message", [("rope", "head_width that 2"), ("sincos2d", "width that 4"), ("none", "")]
)
def test_widths_that_the_codes_cannot_halve_are_refused(resolved, message):
  dims = Dims(model=6, heads=2, kv_heads=2, head=3, value=3, max_len=4)
  if not message:
    check_widths(resolved, dims)
    return
  with pytest.raises(ValueError, match=message):
    check_widths(resolved, dims)


def test_rope_equals_a_product_of_complex_numbers():
  x = np.asarray(jax.random.normal(jax.random.key(0), (1, 5, 2, 6)))
  angles = np.arange(5)[:, None] * 10_000.0 ** (-np.arange(3) / 3)
  turned = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles)[None, :, None]
  expected = np.concatenate([turned.real, turned.imag], axis=-1)
  np.testing.assert_allclose(rope(jnp.asarray(x), jnp.arange(5)[None]), expected, atol=1e-5)


def test_products_of_rotated_queries_and_keys_depend_on_the_distance_alone():
  q, k = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 8))
  products = [float(jnp.vdot(rope(q, jnp.array([[i + 3]])), rope(k, jnp.array([[i]])))) for i in (0, 5, 90)]
  np.testing.assert_allclose(products, products[0], atol=1e-5)


def test_sinusoids_equal_their_formula():
  table = np.asarray(sinusoidal(jnp.array([[0, 3]]), 4))[0]
  np.testing.assert_allclose(table[0], [0, 0, 1, 1])
  np.testing.assert_allclose(table[1], [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)], atol=1e-6)


def test_grid_codes_have_rows_in_one_half_and_columns_in_the_other_and_spare_the_class_token():
  codes = np.asarray(sincos2d((2, 3), 1, 8))[0]
  assert codes.shape == (7, 8)
  np.testing.assert_array_equal(codes[0], 0)
  grid = codes[1:].reshape(2, 3, 8)
  assert (grid[:, :1, :4] == grid[:, :, :4]).all()
  assert (grid[:1, :, 4:] == grid[:, :, 4:]).all()
  assert len({tuple(code) for code in codes}) == 7
