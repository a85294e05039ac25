import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_lab.config import OptimizerConfig
from attention_lab.train import optimizer as optimizers


@pytest.fixture
def params(tiny):
  return jax.jit(tiny().model.init)(jax.random.key(0))


def test_a_fixed_leaf_has_no_gradient_state_decay_or_count(params):
  trainable, fixed = optimizers.partition(params)
  assert len(jax.tree.leaves(fixed)) == 2
  assert jax.tree.structure(optimizers.merge(trainable, fixed)) == jax.tree.structure(params)
  state = optimizers.make_optimizer(OptimizerConfig(), 1000).init(trainable)
  total = sum(leaf.size for leaf in jax.tree.leaves(trainable))
  assert sum(leaf.size for leaf in jax.tree.leaves(state) if leaf.ndim) == 2 * total
  assert optimizers.count(params) == total == sum(leaf.size for leaf in jax.tree.leaves(params)) - 10


def test_decay_is_on_matrices_and_never_on_norms_or_biases(params):
  names = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, decays in jax.tree_util.tree_leaves_with_path(optimizers.decayed(optimizers.partition(params)[0]))
    if decays
  }
  kernels = {"attention/query/kernel", "attention/out/kernel", "mlp/up/kernel", "mlp/down/kernel", "head/kernel"}
  assert names == kernels | {"tokens/embedding"}


def test_without_gradients_only_decay_moves_a_matrix(params):
  trainable, _ = optimizers.partition(params)
  config = OptimizerConfig(learning_rate=0.5, warmup=1, weight_decay=0.1)
  rule = optimizers.make_optimizer(config, 10)

  @jax.jit
  def twice(params):
    state = rule.init(params)
    for _ in range(2):  # the first has the learning rate 0
      updates, state = rule.update(jax.tree.map(jnp.zeros_like, params), state, params)
      params = optax.apply_updates(params, updates)
    return params

  moved = twice(trainable)
  np.testing.assert_allclose(moved["head"]["kernel"], 0.95 * trainable["head"]["kernel"], rtol=1e-6)
  np.testing.assert_array_equal(moved["norm"]["scale"], trainable["norm"]["scale"])


def test_the_schedule_rises_to_the_peak_and_falls_to_a_tenth():
  rate = optimizers.schedule(OptimizerConfig(learning_rate=2.0, warmup=10), 110)
  np.testing.assert_allclose([rate(0), rate(5), rate(10), rate(60), rate(110)], [0, 1, 2, 1.1, 0.2], rtol=1e-6)
  tenth = optimizers.schedule(OptimizerConfig(learning_rate=2.0, warmup=0), 100)
  np.testing.assert_allclose([tenth(5), tenth(10)], [1, 2], rtol=1e-6)


def test_clipping_bounds_the_global_norm_and_zero_means_none():
  gradients = {"kernel": jnp.full((2, 2), 10.0)}
  for clip, norm in ((1.0, 1.0), (0.0, 20.0)):
    rule = optimizers.make_optimizer(OptimizerConfig(clip=clip), 1000)
    _, state = jax.jit(rule.update)(gradients, rule.init(gradients), gradients)
    np.testing.assert_allclose(optax.global_norm(state[1][0].mu) / 0.1, norm, rtol=1e-5)
