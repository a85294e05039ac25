"""Ways to read a vision transformer's patches, its registers, and the registry of models of images."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.models import vision
from attention_lab.models.functional import functional
from attention_lab.models.layers import Output
from attention_lab.models.vision import VisionConfig
from attention_lab.models.vision_transformer import patches

KEY = jax.random.key(0)
SMALL = VisionConfig(width=16, heads=2, layers=1)
IMAGES = jax.random.uniform(KEY, (2, 4, 6, 1))


def model_of(**fields):
  config = dataclasses.replace(SMALL, **fields)
  return functional(lambda key: vision.build(config, (4, 6, 1), 3, key=key))


def logits(model, params, images=IMAGES):
  return jax.jit(model.apply)(params, images).logits


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
@pytest.mark.parametrize("registers", [0, 2])
def test_every_patch_is_read_and_registers_change_what_is_seen(filled, pooling, registers):
  model = model_of(pooling=pooling, registers=registers, positions="sincos2d")
  params = filled(model)
  read = jax.jit(jax.grad(lambda params, images: model.apply(params, images).logits[0, 0], (0, 1)))
  gradients, influence = read(params, IMAGES[:1])
  assert (jnp.abs(patches(influence, 2)).max(axis=-1) > 0).all()
  chex.assert_tree_all_finite(gradients)
  assert ("registers" in params) == bool(registers)
  if registers:
    assert params["registers"].shape == (1, 2, 16)
    assert (jnp.abs(gradients["registers"]).max(axis=-1) > 0).all()


class Seen:
  """An encoder that keeps what enters it and does nothing."""

  dtype = jnp.float32

  def __call__(self, x, *, positions, **_):
    self.x, self.positions = x, positions
    return Output(x, {}, {})


def test_registers_stand_behind_the_class_token_and_before_the_grid(filled):
  model = model_of(pooling="cls", registers=2)
  params = filled(model)
  module = model.bind(params)
  assert module.max_len == vision.places(dataclasses.replace(SMALL, pooling="cls", registers=2), (4, 6, 1)) == 9
  module.encoder = Seen()
  module(IMAGES)
  for i in range(2):
    np.testing.assert_array_equal(module.encoder.x[i, 0], params["class_token"][0, 0])
    np.testing.assert_array_equal(module.encoder.x[i, 1:3], params["registers"][0])
  assert (module.encoder.positions.grid, module.encoder.positions.extra) == ((2, 3), 3)


@pytest.mark.parametrize("pooling", ["mean", "cls", "attention"])
def test_registers_are_not_pooled(filled, pooling):
  model = model_of(pooling=pooling, registers=2)
  params = filled(model)
  outputs = []
  for shift in (0.0, 1.0):
    module = model.bind(params | {"registers": params["registers"] + shift})
    module.encoder = Seen()
    outputs.append(module(IMAGES).logits)
  chex.assert_trees_all_equal(*outputs)


def test_registers_start_apart_so_that_they_can_become_different():
  start = model_of(registers=2).init(KEY)["registers"][0]
  assert jnp.abs(start[0] - start[1]).max() > 0.01


def test_defaults_have_the_parameters_that_checkpoints_hold():
  params = jax.eval_shape(model_of().init, KEY)
  assert set(params) == {"encoder", "patches", "head"}
  assert set(jax.eval_shape(model_of(pooling="cls").init, KEY)) == {"encoder", "patches", "head", "class_token"}


@pytest.mark.parametrize("architecture", vision.ARCHITECTURES)
def test_every_architecture_is_one_signature(filled, architecture):
  config = VisionConfig(architecture=architecture, width=8, layers=1)
  model = functional(lambda key: vision.build(config, (4, 6, 1), 3, key=key))
  out = logits(model, filled(model))
  chex.assert_shape(out, (2, 3))
  assert out.dtype == jnp.float32
  assert np.isfinite(out).all()
  assert vision.places(config, (4, 6, 1)) == (24 if architecture == "resnet" else 6)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"architecture": "vti"}, r"--config.model.architecture=vti is unknown, did you mean 'vit'"),
    ({"stages": "1"}, r"--config.model.stages=1 means nothing to --config.model.architecture=vit: leave it out, or"),
    ({"block": "cbam"}, r"--config.model.block=cbam means nothing .*give --config.model.architecture=resnet"),
    ({"architecture": "hierarchical", "registers": 1}, r"--config.model.registers=1 means nothing to"),
    ({"architecture": "hierarchical", "size": "S/16"}, r"--config.model.size=S/16 means nothing to"),
    ({"registers": -1}, r"--config.model.registers=-1 is negative; 0 means none"),
    ({"pooling": "max"}, r"--config.model.pooling=max is unknown.*; choices: mean, cls, attention"),
  ],
)
def test_settings_that_do_not_fit_are_one_line_that_names_the_flag(fields, message):
  with pytest.raises(ValueError, match=message):
    model_of(**fields).init(KEY)
