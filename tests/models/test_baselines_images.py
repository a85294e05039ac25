"""The residual network and its gates, against plain NumPy."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.models import vision
from attention_lab.models.baselines.convolution import Convolution
from attention_lab.models.baselines.residual import Block, Cbam, GroupNorm, NonLocal, SqueezeExcitation
from attention_lab.models.functional import functional
from attention_lab.models.vision import VisionConfig

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(2, 5, 4, 16)).astype(np.float32)
IMAGES = jnp.asarray(np.random.default_rng(1).uniform(size=(2, 7, 6, 1)).astype(np.float32))


def network(**fields):
  config = VisionConfig(**{"architecture": "resnet", "width": 8, "layers": 1} | fields)
  return functional(lambda key: vision.build(config, (7, 6, 1), 3, key=key))


def run(build, filled, x=X, **call):
  model = functional(build)
  params = filled(model)
  return jax.tree.map(np.asarray, params), jax.jit(lambda params, x: model.apply(params, x, **call))(params, x)


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def hidden_gate(params, summary):
  hidden = np.maximum(summary @ params["squeeze"]["kernel"] + params["squeeze"]["bias"], 0)
  return hidden @ params["excite"]["kernel"] + params["excite"]["bias"]


def convolved(x, kernel, stride):
  """By its definition, for odd windows: `same`, zeros outside."""
  size = kernel.shape[0]
  places = [-(-length // stride) for length in x.shape[1:3]]
  # As many zeros as the last window needs, the smaller half in front.
  edges = [max((count - 1) * stride + size - length, 0) for count, length in zip(places, x.shape[1:3], strict=True)]
  padded = np.pad(x, ((0, 0), *((edge // 2, edge - edge // 2) for edge in edges), (0, 0)))
  out = np.zeros((len(x), *places, kernel.shape[3]))
  for row in range(places[0]):
    for column in range(places[1]):
      top, left = row * stride, column * stride
      out[:, row, column] = np.einsum("byxi,yxio->bo", padded[:, top : top + size, left : left + size], kernel)
  return out


@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (7, 1)])
def test_a_convolution_is_its_sum(size, stride, filled):
  params, out = run(lambda key: Convolution((size, size), 16, 3, key=key, stride=stride), filled)
  np.testing.assert_allclose(out, convolved(X, params["kernel"], stride) + params["bias"], atol=1e-4)


def test_a_group_norm_is_over_the_places_and_channels_of_each_group_of_one_image(filled):
  params, out = run(lambda key: GroupNorm(16), filled)
  for image in range(2):
    for group in (slice(0, 8), slice(8, 16)):
      part = X[image, :, :, group]
      expected = (part - part.mean()) / np.sqrt(part.var() + 1e-5) * params["scale"][group] + params["bias"][group]
      np.testing.assert_allclose(out[image, :, :, group], expected, atol=1e-5)


def test_squeeze_excitation_scales_channels_by_their_means(filled):
  params, out = run(lambda key: SqueezeExcitation(16, key=key), filled)
  gate = sigmoid(hidden_gate(params, X.mean(axis=(1, 2))))
  np.testing.assert_allclose(out, X * gate[:, None, None], atol=1e-5)


def test_cbam_scales_channels_and_then_places(filled):
  params, out = run(lambda key: Cbam(16, key=key), filled)
  channels = params["channels"]
  gate = sigmoid(hidden_gate(channels, X.mean(axis=(1, 2))) + hidden_gate(channels, X.max(axis=(1, 2))))
  scaled = X * gate[:, None, None]
  summary = np.stack([scaled.mean(axis=3), scaled.max(axis=3)], axis=3)
  places = convolved(summary, params["places"]["kernel"], 1) + params["places"]["bias"]
  np.testing.assert_allclose(out, scaled * sigmoid(places), atol=1e-5)


def test_a_shortcut_is_the_input_thinned_out_and_filled_up_with_zeros(filled):
  model = functional(lambda key: Block(16, 24, 2, "plain", key=key))
  params = jax.tree.map(jnp.zeros_like, filled(model))
  expected = np.zeros((2, 3, 2, 24))
  expected[..., :16] = np.maximum(X[:, ::2, ::2], 0)
  np.testing.assert_allclose(model.apply(params, jnp.asarray(X)), expected)


@pytest.mark.parametrize("attention", ["softmax", "axial", "neighbourhood(window=3)", "linear"])
def test_a_non_local_block_starts_as_the_identity_and_then_reads_the_grid(attention, filled):
  config = VisionConfig(attention=attention, heads=2)
  build = functional(lambda key: NonLocal(config, 0, (5, 4), 16, key=key, mesh=None))
  x = jnp.asarray(X)
  chex.assert_trees_all_close(build.apply(build.init(KEY), x).out, x)
  params = filled(build)
  before, after = (build.apply(params, rows).out for rows in (x, x.at[:, 0, 0].add(1.0)))
  changed = np.abs(before - after).max(axis=(0, 3)) > 1e-3
  assert changed[0, 1]
  assert changed[1, 0]


# The bias of a key would shift all logits of a softmax alike and learn nothing; a sigmoid has no such direction.
@pytest.mark.parametrize(
  "fields",
  [{}, {"block": "squeeze_excitation"}, {"block": "cbam"}, {"block": "non_local", "attention": "sigmoid", "heads": 2}],
  ids=["plain", "squeeze_excitation", "cbam", "non_local"],
)
def test_every_parameter_of_a_residual_network_learns(fields, filled):
  model = network(**fields)
  params = filled(model, seed=2)  # at which no hidden layer of a gate is dead

  @jax.jit
  def gradient(params):
    return jax.grad(lambda params: jnp.sum(model.apply(params, IMAGES).logits[:, 1]))(params)

  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient(params)):
    assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert np.any(leaf), jax.tree_util.keystr(path)


def test_a_residual_network_treats_images_of_a_batch_apart(filled):
  model = network()
  params = filled(model)
  both, alone = (jax.jit(model.apply)(params, images).logits for images in (IMAGES, IMAGES[1:]))
  chex.assert_trees_all_close(both[1:], alone, atol=1e-5)


def test_a_residual_network_in_bfloat16_answers_in_float32_and_keeps_its_parameters_so(filled):
  model = network(dtype="bfloat16")
  params = filled(model)
  assert jax.jit(model.apply)(params, IMAGES).logits.dtype == jnp.float32
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
  ("fields", "named"),
  [
    ({"attention": "linear"}, "attention=linear means nothing to resnet with block=plain"),
    ({"block": "cbm"}, "block=cbm is unknown.*cbam"),
    ({"positions": "rope2d", "block": "non_local"}, "positions=rope2d means nothing"),
    ({"layers": 0}, "layers=0 is less than 1"),
    ({"block": "non_local", "heads": 3}, "heads=3 does not divide"),
  ],
)
def test_settings_that_a_residual_network_would_ignore_are_refused_by_name(fields, named):
  with pytest.raises(ValueError, match=named):
    network(**fields).init(KEY)


def test_a_causal_variant_is_refused_on_a_grid_by_name(filled):
  model = network(block="non_local", attention="memorizing", heads=2)
  with pytest.raises(Unsupported, match="Memorizing"):
    jax.eval_shape(model.apply, filled(model), IMAGES)
