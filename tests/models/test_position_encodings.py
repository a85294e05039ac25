"""EmbeddingEncoding that are added to embeddings equal their formulas."""

import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.models.position_encodings import sincos2d, sinusoidal


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
