import importlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from attention_lab.attention import spec
from attention_lab.attention.base import Dims
from attention_lab.certify import cases
from attention_lab.config import ModelConfig, OptimizerConfig
from attention_lab.models import classifier, vision
from attention_lab.models.bert import Bert
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.vision import VisionConfig
from attention_lab.train import optimizer as optimizers

SMALL = {"layers": 1, "width": 8, "heads": 2}


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
  config = OptimizerConfig(learning_rate=0.5, warmup=0, weight_decay=0.1)
  rule = optimizers.make_optimizer(config, 10)

  @jax.jit
  def once(params):
    updates, _ = rule.update(jax.tree.map(jnp.zeros_like, params), rule.init(params), params)
    return optax.apply_updates(params, updates)

  moved = once(trainable)
  np.testing.assert_allclose(moved["head"]["kernel"], 0.95 * trainable["head"]["kernel"], rtol=1e-6)
  np.testing.assert_array_equal(moved["norm"]["scale"], trainable["norm"]["scale"])


def test_the_schedule_rises_from_the_first_update_to_the_peak_and_falls_to_a_tenth():
  rate = optimizers.schedule(OptimizerConfig(learning_rate=2.0, warmup=10), 110)
  updates = [rate(update) for update in (0, 5, 10, 60, 110)]
  np.testing.assert_allclose(updates, [2 / 11, 12 / 11, 2, 1.1, 0.2], rtol=1e-6)


@pytest.mark.parametrize("warmup, peak_at", [(-1, 10), (0, 0), (1, 1), (99, 99)])
def test_the_automatic_warm_up_is_a_tenth_of_the_run_and_0_is_none(warmup, peak_at):
  rate = optimizers.schedule(OptimizerConfig(learning_rate=2.0, warmup=warmup), 100)
  rates = np.array([rate(update) for update in range(100)])
  assert rates.argmax() == peak_at
  assert rates.max() == pytest.approx(2.0)
  assert rates.min() > 0


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_run_too_short_for_a_tenth_begins_at_the_peak(steps):
  assert optimizers.schedule(OptimizerConfig(learning_rate=2.0), steps)(0) == pytest.approx(2.0)


DECAYED = {  # the arrays of each variant that weight decay shrinks; no other variant has one
  "additive": {"per_head/vector"},
  "bilinear": {"per_head/kernel"},
  "delta_rule": {"kernel"},
  "fox": {"kernel"},
  "gated_delta": {"decay/kernel", "write/kernel"},
  "gated_linear": {"kernel"},
  "induced_set": {"per_head/latents"},
  "linformer": {"keys", "values"},
  "long_convolution": {"per_head/backward", "per_head/filter"},
  "mla": {"down", "per_head/keys", "per_head/query", "per_head/values", "query", "rope"},
  "persistent": {"per_head/keys", "per_head/values"},
  "ssd": {"kernel"},
  "synthesizer": {
    *("per_head/columns", "per_head/kernel1", "per_head/kernel2", "per_head/logits", "per_head/rows"),
  },
  "talking_heads": {"logits", "weights"},
  "token_mixer": {"kernel1", "kernel2"},
  "transformer_xl": {"per_head/kernel"},
}
SPARED = {  # the arrays of several axes that it leaves alone: biases, and vectors of positions
  "cope": {"codes"},
  "disentangled": {"per_head/keys", "per_head/queries"},
  "gated_linear": {"bias"},
  "relative": {"keys", "values"},
  "synthesizer": {"per_head/bias1", "per_head/bias2"},
  "t5": {"per_head/bias"},
  "transformer_xl": {"per_head/content", "per_head/position"},
}


def split_by_decay(params, undecayed):
  """(paths of the leaves that are decayed, paths of those of several axes that are not)."""
  trainable, _ = optimizers.partition(params)
  masks = jax.tree_util.tree_leaves_with_path(optimizers.decayed(trainable, undecayed))
  named = [(jax.tree_util.keystr(path, simple=True, separator="/"), mask) for path, mask in masks]
  leaves = [(name, mask, leaf) for (name, mask), leaf in zip(named, jax.tree.leaves(trainable), strict=True)]
  return {n for n, mask, _ in leaves if mask}, {n for n, mask, leaf in leaves if not mask and leaf.ndim > 1}


@pytest.mark.parametrize("name", spec.names())
def test_weight_decay_is_on_the_maps_of_a_variant_and_on_no_bias_or_vector_of_a_position(name):
  decayed, spared, dims = set(), set(), Dims(16, 4, 4, 4, 4, 16)
  for text in importlib.import_module(f"{cases.__name__}.{name}").SPECS:
    variant = spec.parse(text)
    parts = split_by_decay(
      jax.eval_shape(lambda key, v=variant: v.init(key, dims), jax.random.key(0)), variant.undecayed
    )
    decayed, spared = decayed | parts[0], spared | parts[1]
    assert variant.undecayed <= parts[1]
  assert (decayed, spared) == (DECAYED.get(name, set()), SPARED.get(name, set()))


def test_in_a_layer_of_parts_the_norm_and_what_the_mechanism_declares_are_left_alone():
  variant = spec.parse("conv>(relative(clip=2))>norm(over='layer')>gate")
  params = jax.eval_shape(lambda key: variant.init(key, Dims(16, 4, 4, 4, 4, 16)), jax.random.key(0))
  decayed, spared = split_by_decay(params, variant.undecayed)
  assert spared == {"mechanism/keys", "mechanism/values", "norm/gain"}
  assert decayed == {"conv/q", "conv/k", "conv/v", "gate/kernel"}


MODELS = {  # name of a model -> (its builder, the last names of its leaves of several axes that are not decayed)
  "language model": (
    lambda key: TransformerLM(ModelConfig(attention="alibi+relative", positions="learned", **SMALL), 11, 8, key=key),
    {"bias", "table", "keys", "values"},
  ),
  "BERT": (lambda key: Bert(ModelConfig(positions="learned", **SMALL), 11, 8, key=key), {"bias", "table"}),
  "LSTM": (lambda key: classifier.build(ClassifierConfig(architecture="lstm", **SMALL), 11, 8, 2, key=key), {"bias"}),
  "ViT": (
    lambda key: vision.build(
      VisionConfig(pooling="cls", registers=2, patch=4, positions="learned", **SMALL), (8, 8, 1), 2, key=key
    ),
    {"bias", "class_token", "registers", "table"},
  ),
  "ViT, attention pooling, biases of a grid": (
    lambda key: vision.build(
      VisionConfig(pooling="attention", patch=4, positions="bias2d", **SMALL), (8, 8, 1), 2, key=key
    ),
    {"bias", "probe"},
  ),
  "residual network": (
    lambda key: vision.build(VisionConfig(architecture="resnet", **SMALL), (8, 8, 1), 2, key=key),
    set(),
  ),
}


@pytest.mark.parametrize("name", MODELS)
def test_weight_decay_is_on_no_vector_of_a_model(name):
  build, names = MODELS[name]
  model = functional(build)
  decayed, spared = split_by_decay(jax.eval_shape(model.init, jax.random.key(0)), model.undecayed)
  assert {path.rpartition("/")[2] for path in spared} == names
  assert {path.rpartition("/")[2] for path in decayed} <= {"kernel", "embedding", "recurrent"}


def test_clipping_bounds_the_global_norm_and_zero_means_none():
  gradients = {"kernel": jnp.full((2, 2), 10.0)}
  for clip, norm in ((1.0, 1.0), (0.0, 20.0)):
    rule = optimizers.make_optimizer(OptimizerConfig(clip=clip), 1000)
    _, state = jax.jit(rule.update)(gradients, rule.init(gradients), gradients)
    np.testing.assert_allclose(optax.global_norm(state[1][0].mu) / 0.1, norm, rtol=1e-5)
