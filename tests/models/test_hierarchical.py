"""A vision transformer in stages: merging, grids that halve, and which variants read them."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.base import AttentionOutput, Unsupported
from attention_lab.attention.mask import FULL
from attention_lab.attention.positions import Positions
from attention_lab.attention.variants.softmax import Softmax
from attention_lab.config import MeshConfig
from attention_lab.models.functional import functional
from attention_lab.models.hierarchical import HierarchicalVisionTransformer, depths, grids
from attention_lab.models.vision import VisionConfig
from attention_lab.models.vision_transformer import patches

KEY = jax.random.key(0)
IMAGE = (8, 8, 1)
SMALL = VisionConfig(architecture="hierarchical", width=8, heads=2, layers=2, positions="bias2d")
IMAGES = jax.random.uniform(KEY, (2, *IMAGE))


def model_of(image=IMAGE, mesh=None, **fields):
  config = dataclasses.replace(SMALL, **fields)
  return functional(lambda key: HierarchicalVisionTransformer(config, image, 3, key=key, mesh=mesh))


def test_each_stage_has_half_the_rows_and_columns_and_twice_the_width_and_heads():
  fields = {"layers": 4, "stages": "1,2,1", "heads": 4, "kv_heads": 2, "mlp_width": 12, "positions": "learned"}
  params = jax.eval_shape(model_of(**fields).init, KEY)
  for stage, (count, tokens, width) in enumerate(((1, 16, 8), (2, 4, 16), (1, 1, 32))):
    stage_params = params["stages"][str(stage)]
    assert len(stage_params["layers"]) == count
    assert stage_params["codes"]["learned"]["table"].shape == (tokens, width)
    layer = stage_params["layers"]["0"]
    assert layer["attention"]["query"]["kernel"].shape == (width, 4 << stage, 2)
    assert layer["attention"]["key"]["kernel"].shape == (width, 2 << stage, 2)
    assert layer["mlp"]["up"]["kernel"].shape == (width, 12 << stage)
  assert [params["merges"][name]["kernel"].shape for name in "01"] == [(32, 16), (64, 32)]
  assert params["head"]["kernel"].shape == (32, 3)


def test_without_layers_it_is_squares_merged_into_their_parents(filled):
  model = model_of(positions="none")
  params = filled(model)
  module = model.bind(params)
  for stage in module.stages:
    stage.variants = ()
  norm = lambda x, stage: module.stages[stage].norm(x)
  x = norm(module.patches(patches(2 * IMAGES - 1, 2)), 0).reshape(2, 4, 4, 8)
  squares = [x[:, row::2, column::2] for row in (0, 1) for column in (0, 1)]
  merged = jnp.concatenate(squares, axis=-1).reshape(2, 4, 32) @ params["merges"]["0"]["kernel"]
  x = norm(merged + params["merges"]["0"]["bias"][None, None], 1)
  expected = x.mean(axis=1) @ params["head"]["kernel"] + params["head"]["bias"][None]
  chex.assert_trees_all_close(module(IMAGES).logits, expected, atol=1e-5)


def test_a_window_keeps_to_itself_until_its_neighbour_is_shifted(filled):
  """2×2 windows: a pixel moves the four tokens around it, and with a shifted layer those beyond."""
  reached = []
  for attention in ("swin(window=2)", "swin(window=2)|swin(window=2, shift=1)"):
    model = model_of(attention=attention, layers=2, stages="2")
    module = model.bind(filled(model))
    stage = module.stages[0]
    x = jax.random.normal(KEY, (1, 16, 8))
    forward = jax.jit(lambda x, stage=stage: stage(x, mask=FULL, positions=Positions(grid=(4, 4))).logits)
    moved = forward(x.at[0, 0, 0].add(1.0)) - forward(x)
    reached.append(np.flatnonzero(np.abs(moved[0]).max(axis=-1) > 1e-6).tolist())
  assert reached[0] == [0, 1, 4, 5]
  assert reached[1] == [0, 1, 2, 4, 5, 6, 8, 9, 10]


VARIANTS = ["swin(window=2)|swin(window=2, shift=1)", "neighbourhood(window=3)|axial", "linear+region(size=2)"]


@pytest.mark.parametrize("attention", VARIANTS)
def test_gradients_are_finite_and_come_from_every_pixel(filled, attention):
  positions = "bias2d" if "swin" in attention else "sincos2d"
  model = model_of(attention=attention, positions=positions, pooling="attention" if "swin" in attention else "mean")
  params = filled(model)
  gradients, influence = jax.jit(jax.grad(lambda *args: model.apply(*args).logits[0, 0], (0, 1)))(params, IMAGES[:1])
  chex.assert_tree_all_finite(gradients)
  assert (jnp.abs(influence) > 0).all()


def test_bfloat16_with_every_other_choice_is_near_float32(filled):
  fields = {"norm": "rms", "norm_place": "post", "mlp": "swiglu", "positions": "rope2d", "width": 16}
  exact, low = model_of(**fields), model_of(**fields, dtype="bfloat16", remat="full", dropout=0.2)
  params = filled(low)
  near = jax.jit(low.apply)(params, IMAGES).logits
  assert near.dtype == jnp.float32
  assert 1e-6 < jnp.abs(near - jax.jit(exact.apply)(params, IMAGES).logits).max() < 0.1
  assert not np.allclose(near, jax.jit(low.apply)(params, IMAGES, key=KEY).logits, atol=1e-2)


def test_statistics_and_losses_count_layers_through_all_stages(filled, monkeypatch):
  attend, unit = Softmax.attend, jnp.ones(())
  monkeypatch.setattr(Softmax, "attend", lambda *args: AttentionOutput(attend(*args), {"one": unit}, {"two": 2 * unit}))
  model = model_of(layers=3, stages="1,2")
  output = jax.jit(model.apply)(filled(model), IMAGES)
  assert {name: float(value) for name, value in output.losses.items()} == {"one": 3.0}
  assert list(output.stats) == ["layer_0/two", "layer_1/two", "layer_2/two"]


def test_eight_devices_give_the_same_logits(filled):
  mesh, images = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), jnp.tile(IMAGES, (2, 1, 1, 1))
  model, split = (model_of(mesh=m, attention="swin(window=2)", pooling="attention") for m in (None, mesh))
  params = filled(model)
  placed = jax.device_put((params, images), (meshes.shardings(params, mesh), meshes.batch_sharding(mesh)))
  expected = jax.jit(model.apply)(params, images).logits
  chex.assert_trees_all_close(jax.jit(split.apply)(*placed).logits, expected, atol=1e-5)


@pytest.mark.parametrize("stages, layers, expected", [("", 4, (2, 2)), ("", 1, (1,)), ("2, 2,6,2", 12, (2, 2, 6, 2))])
def test_stages_are_written_out_or_halves(stages, layers, expected):
  assert depths(dataclasses.replace(SMALL, stages=stages, layers=layers)) == expected


def test_grids_halve():
  assert grids(dataclasses.replace(SMALL, patch=4, layers=3, stages="1,1,1"), (32, 16, 3)) == ((8, 4), (4, 2), (2, 1))


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"stages": "2,2"}, r"--config.model.stages=2,2 has 4 layers, and --config.model.layers is 2: give equal"),
    ({"stages": "2x"}, r"--config.model.stages=2x is malformed: write the layers of each stage"),
    ({"stages": "0,2"}, r"--config.model.stages=0,2 is malformed"),
    ({"pooling": "cls"}, r"--config.model.pooling=cls is unknown.*; choices: mean, attention"),
    ({"image": (8, 10, 1)}, r"a grid of 4×5 patches cannot be halved 1 times for 2 --config.model.stages"),
    ({"registers": 2}, r"--config.model.registers=2: merging has no place for tokens before the grid"),
    ({"size": "mini/2"}, r"--config.model.size=mini/2 is that of a plain vision transformer"),
  ],
)
def test_settings_that_do_not_fit_are_one_line_that_names_the_flag(fields, message):
  with pytest.raises(ValueError, match=message):
    model_of(**fields).init(KEY)


@pytest.mark.parametrize(
  "attention", ["swin(window=2, columns=4)", "softmax+axial(columns=4)", "divided_space_time(tokens=4)"]
)
def test_a_variant_with_a_grid_of_its_own_is_refused_by_name(attention):
  fix = "(leave columns out|give axial)"
  with pytest.raises(Unsupported, match=rf"has one grid, and --config.model.architecture=hierarchical several; {fix}"):
    model_of(attention=attention, positions="learned").init(KEY)


def test_a_causal_variant_is_refused_by_itself(filled):
  model = model_of(attention="stick_breaking", positions="none")
  with pytest.raises(Unsupported, match="StickBreaking is causal by construction"):
    model.apply(filled(model), IMAGES)
