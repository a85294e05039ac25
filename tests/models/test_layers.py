"""Which norm, where it stands, and which map follows it: the formulas, and what the defaults stay."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.mask import CAUSAL
from attention_lab.config import MeshConfig, ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.layers import norm

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
SMALL = ModelConfig(width=16, heads=2, layers=2)
OTHER = {"norm": "rms", "norm_place": "post", "mlp": "swiglu"}


def language_model(mesh=None, **fields):
  config = dataclasses.replace(SMALL, **fields)
  return functional(lambda key: TransformerLM(config, 12, 12, key=key, mesh=mesh))


def by_path(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def layer_norm(x, params):
  x = x - x.mean(-1, keepdims=True)
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"] + params["bias"]


def rms_norm(x, params):
  return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * params["scale"]


def linear(x, params):
  return x @ params["kernel"] + params["bias"]


def gelu(x, params):
  up = linear(x, params["up"])
  return linear(0.5 * up * (1 + np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3))), params["down"])


def swiglu(x, params):
  gate = linear(x, params["gate"])
  return linear(gate / (1 + np.exp(-gate)) * linear(x, params["up"]), params["down"])


@pytest.mark.parametrize("kind, oracle", [("layer", layer_norm), ("rms", rms_norm)])
def test_a_norm_is_its_formula_in_float32_whatever_comes_in(kind, oracle, filled):
  model = functional(lambda key: norm(kind, 16))
  params, x = filled(model), 3 + jax.random.normal(KEY, (2, 3, 16))
  chex.assert_trees_all_close(
    model.apply(params, x), np.float32(oracle(np.asarray(x), jax.tree.map(np.asarray, params))), atol=1e-5
  )
  low = model.apply(params, x.astype(jnp.bfloat16))
  assert low.dtype == jnp.bfloat16
  exact = model.apply(params, x.astype(jnp.bfloat16).astype(jnp.float32))
  chex.assert_trees_all_equal(low, exact.astype(jnp.bfloat16))


@pytest.mark.parametrize("norm_place", ["pre", "post"])
@pytest.mark.parametrize("kind, mlp", [("layer", swiglu), ("rms", gelu)])
def test_a_layer_is_its_formula(norm_place, kind, mlp, filled):
  model = language_model(
    layers=1, norm=kind, norm_place=norm_place, mlp=mlp.__name__, mlp_width=24, attention="pooling"
  )
  params, norm_of = filled(model), {"layer": layer_norm, "rms": rms_norm}[kind]
  assert params["decoder"]["layers"]["0"]["mlp"]["up"]["kernel"].shape == (16, 24)
  block = jax.tree.map(np.asarray, params["decoder"]["layers"]["0"])
  module = model.bind(params)
  x = np.asarray(4 * params["tokens"]["embedding"][TOKENS] + params["decoder"]["codes"]["learned"]["table"][None, :6])
  attend = lambda x: np.asarray(module.decoder.layers[0].attention(jnp.asarray(x), mask=CAUSAL).out)
  if norm_place == "post":
    x = norm_of(x + attend(x), block["attention_norm"])
    x = norm_of(x + mlp(x, block["mlp"]), block["mlp_norm"])
  else:
    x = x + attend(norm_of(x, block["attention_norm"]))
    x = x + mlp(norm_of(x, block["mlp_norm"]), block["mlp"])
    x = norm_of(x, jax.tree.map(np.asarray, params["decoder"]["norm"]))
  chex.assert_trees_all_close(module.hidden(TOKENS).logits, np.float32(x), atol=1e-4, rtol=1e-4)


def test_the_defaults_have_the_parameters_and_first_values_that_checkpoints_hold():
  params = by_path(language_model(layers=1).init(KEY))
  linears = [f"attention/{name}" for name in ("query", "key", "value", "out")] + ["mlp/up", "mlp/down"]
  expected = {f"decoder/layers/0/{name}/{leaf}" for name in linears for leaf in ("kernel", "bias")}
  norms = ("layers/0/attention_norm", "layers/0/mlp_norm", "norm")
  expected |= {f"decoder/{name}/{leaf}" for name in norms for leaf in ("scale", "bias")}
  assert set(params) == expected | {"tokens/embedding"}
  first_values = [float(params[f"decoder/layers/0/{name}/kernel"].ravel()[0]) for name in ("attention/out", "mlp/up")]
  np.testing.assert_allclose(first_values, [-0.10998543, 0.11478237], rtol=1e-5)


def test_another_norm_or_map_moves_no_other_first_value():
  reference = by_path(language_model().init(KEY))
  for name, value in OTHER.items():
    params = by_path(language_model(**{name: value}).init(KEY))
    shared = set(reference) & set(params)
    chex.assert_trees_all_equal({path: params[path] for path in shared}, {path: reference[path] for path in shared})
    assert set(params) != set(reference)


def test_post_norm_has_no_last_norm_and_rms_no_biases():
  paths = set(by_path(jax.eval_shape(language_model(**OTHER).init, KEY)))
  assert not [path for path in paths if path.startswith("decoder/norm/")]
  assert not [path for path in paths if "norm/bias" in path]


def test_two_thirds_of_the_width_give_a_gated_map_the_parameters_of_the_plain_one():
  def kernels(**fields):
    params = by_path(jax.eval_shape(language_model(**fields).init, KEY))
    return sum(leaf.size for path, leaf in params.items() if "/mlp/" in path and path.endswith("kernel"))

  assert kernels(mlp="swiglu", mlp_width=32) == kernels(mlp="gelu", mlp_width=48)
  assert kernels(mlp="swiglu") == 1.5 * kernels(mlp="gelu")


def test_decoding_in_pieces_gives_what_one_call_gives(filled):
  model = language_model(**OTHER)
  params = filled(model)
  state, pieces = model.bind(params).init_state(2), []
  extend = jax.jit(lambda params, tokens, state: model.bind(params).extend(tokens, state))
  for chunk in (TOKENS[:, :3], TOKENS[:, 3:]):
    state, logits = extend(params, chunk, state)
    pieces.append(logits)
  chex.assert_trees_all_close(jnp.concatenate(pieces, axis=1), jax.jit(model.apply)(params, TOKENS).logits, atol=1e-5)


def test_remat_dropout_and_bfloat16_give_finite_gradients_that_agree(filled):
  remat_gradients = {}
  for remat in ("none", "full"):
    model = language_model(**OTHER, remat=remat, dropout=0.3)
    loss = lambda params, model=model: jnp.mean(model.apply(params, TOKENS, key=KEY).logits ** 2)
    remat_gradients[remat] = jax.jit(jax.grad(loss))(filled(model))
  chex.assert_trees_all_close(remat_gradients["full"], remat_gradients["none"], rtol=1e-5, atol=1e-6)
  low = language_model(**OTHER, dtype="bfloat16")
  gradients = jax.jit(jax.grad(lambda params: jnp.mean(low.apply(params, TOKENS).logits ** 2)))(filled(low))
  chex.assert_tree_all_finite((remat_gradients, gradients))
  assert jnp.abs(gradients["decoder"]["layers"]["0"]["mlp"]["gate"]["kernel"]).max() > 0


def test_eight_devices_split_the_gated_map_and_give_the_same_logits(filled):
  mesh, tokens = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), jnp.tile(TOKENS, (2, 1))
  model, split = language_model(layers=1, **OTHER), language_model(mesh, layers=1, **OTHER)
  params = filled(model)
  places = meshes.shardings(params, mesh)
  mlp = places["decoder"]["layers"]["0"]["mlp"]
  specs = {name: tuple(mlp[name]["kernel"].spec) for name in ("gate", "up", "down")}
  assert specs == {"gate": ("fsdp", "tensor"), "up": ("fsdp", "tensor"), "down": ("tensor", "fsdp")}
  placed = jax.device_put((params, tokens), (places, meshes.batch_sharding(mesh)))
  expected = jax.jit(model.apply)(params, tokens).logits
  chex.assert_trees_all_close(jax.jit(split.apply)(*placed).logits, expected, atol=1e-5)


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"norm": "rmsnorm"}, r"--config.model.norm=rmsnorm is unknown, did you mean 'rms'\?; choices: layer, rms"),
    ({"norm_place": "past"}, r"--config.model.norm_place=past is unknown, did you mean 'post'"),
    ({"mlp": "glu"}, r"--config.model.mlp=glu is unknown.*; choices: gelu, swiglu"),
  ],
)
def test_an_unknown_choice_is_refused_by_name(fields, message):
  with pytest.raises(ValueError, match=message):
    language_model(**fields).init(KEY)
