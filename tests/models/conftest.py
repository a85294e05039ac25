"""Parameters for tests that do not care about initial values: filling shapes costs no compilation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def filled():
  """A function from a `Functional` to parameters N(0, 0.2²), except that scales start at 1 as they should."""

  def fill(model, seed=0):
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(model.init, jax.random.key(0))

    def leaf(path, shape):
      values = rng.normal(0, 0.2, shape.shape).astype(shape.dtype)
      return jnp.asarray(1 + values if path[-1].key == "scale" else values)

    return jax.tree_util.tree_map_with_path(leaf, shapes)

  return fill
