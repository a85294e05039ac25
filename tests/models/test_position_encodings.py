"""EmbeddingEncoding that are added to embeddings equal their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.models.position_encodings import resized_table, sincos2d, sinusoidal


@pytest.mark.parametrize("width", [2, 6, 8])
def test_sinusoids_equal_their_formula(width):
  table = np.asarray(sinusoidal(jnp.arange(5)[None], width))[0]
  assert table.dtype == np.float32
  for position in range(5):
    for i in range(width // 2):
      angle = position * 10_000.0 ** (-2 * i / width)
      np.testing.assert_allclose(table[position, [i, i + width // 2]], [np.sin(angle), np.cos(angle)], atol=1e-6)
  assert len({tuple(row) for row in table}) == 5


@pytest.mark.parametrize("step", [0, 1, 7, -3])
def test_a_step_turns_a_sinusoid_by_a_matrix_that_does_not_depend_on_the_position(step):
  angles = step * 10_000.0 ** (-np.arange(3) / 3)
  cos, sin = np.diag(np.cos(angles)), np.diag(np.sin(angles))
  matrix = np.block([[cos, sin], [-sin, cos]])
  places = jnp.array([[3, 5, 20]])
  np.testing.assert_allclose(sinusoidal(places + step, 6)[0], sinusoidal(places, 6)[0] @ matrix.T, atol=1e-5)


def test_an_odd_width_is_refused_by_name():
  with pytest.raises(ValueError, match="width=5 must be even"):
    sinusoidal(jnp.zeros((1, 2), jnp.int32), 5)


def test_grid_codes_have_rows_in_one_half_and_columns_in_the_other_and_spare_the_class_token():
  codes = np.asarray(sincos2d((2, 3), 1, 8))[0]
  assert codes.shape == (7, 8)
  np.testing.assert_array_equal(codes[0], 0)
  grid = codes[1:].reshape(2, 3, 8)
  assert (grid[:, :1, :4] == grid[:, :, :4]).all()
  assert (grid[:1, :, 4:] == grid[:, :, 4:]).all()
  assert len({tuple(code) for code in codes}) == 7


def test_a_table_for_as_many_patches_is_the_table_itself():
  table = jnp.arange(10.0).reshape(5, 2)
  assert resized_table(table, (2, 2), extra=1) is table


@pytest.mark.parametrize("old, new", [((4, 4), (8, 8)), ((8, 8), (4, 4)), ((4, 6), (8, 12)), ((6, 6), (12, 6))])
def test_a_ramp_in_a_table_stays_a_ramp_of_the_same_ends_on_another_grid_and_leading_tokens_stay(old, new):
  rows, columns = np.meshgrid(*((np.arange(size) + 0.5) / size for size in old), indexing="ij")
  leading = np.full((2, 2), 7.0, np.float32)
  table = np.concatenate([leading, np.stack([rows, columns], -1).reshape(-1, 2)]).astype(np.float32)
  resized = np.asarray(resized_table(jnp.asarray(table), new, extra=2))
  np.testing.assert_array_equal(resized[:2], leading)
  grid = resized[2:].reshape(*new, 2)
  for axis, size in enumerate(new):
    ramp = np.moveaxis(grid[..., axis], axis, 0)[1:-1]  # at the border there is nothing further to lie between
    expected = ((np.arange(size) + 0.5) / size)[1:-1, None] * np.ones_like(ramp)
    np.testing.assert_allclose(ramp, expected, atol=1e-6)


def test_a_table_of_no_grid_in_those_proportions_is_refused_by_its_size():
  with pytest.raises(ValueError, match="6 learned positions are neither a square nor in the proportions of 4×4"):
    resized_table(jnp.zeros((7, 2)), (4, 4), extra=1)
