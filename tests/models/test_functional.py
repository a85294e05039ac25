"""Modules as pure functions, and initial values that depend on names alone."""

import jax
import jax.numpy as jnp
import pytest

from attention_lab.config import ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.layers import named_key

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5]])


def language_model(attention="softmax", **fields):
  config = ModelConfig(attention=attention, **{"width": 16, "heads": 2, "layers": 2} | fields)
  return functional(lambda key: TransformerLM(config, 11, 12, key=key))


def by_path(params):
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def test_parameters_are_nested_plain_dicts_with_string_keys():
  def plain(tree):
    return not isinstance(tree, dict) or (
      type(tree) is dict and all(type(k) is str and plain(v) for k, v in tree.items())
    )

  model = language_model("relative", layers=11)
  params = jax.eval_shape(model.init, KEY)
  assert plain(params)
  assert set(params["decoder"]["layers"]) == {str(i) for i in range(11)}


def test_the_paths_are_those_that_the_sharding_table_knows():
  paths = set(by_path(jax.eval_shape(language_model("alibi").init, KEY)))
  layer = {"query", "key", "value", "out"}
  for name in [*(f"attention/{part}" for part in layer), "mlp/up", "mlp/down"]:
    assert {f"decoder/layers/1/{name}/kernel", f"decoder/layers/1/{name}/bias"} <= paths
  assert {"decoder/layers/0/attention/params/fixed/per_head/slopes", "tokens/embedding", "decoder/norm/scale"} <= paths


def test_init_is_the_same_under_jit_and_differs_between_keys():
  model = language_model(layers=1)
  init = jax.jit(model.init)
  params, jitted, other = model.init(KEY), init(KEY), init(jax.random.key(1))
  same = jax.tree.map(lambda a, b: bool(jnp.allclose(a, b, rtol=1e-6, atol=1e-7)), params, jitted)
  assert all(jax.tree.leaves(same))
  assert not jnp.array_equal(params["tokens"]["embedding"], other["tokens"]["embedding"])


def test_variants_share_the_initial_value_of_every_parameter_of_equal_path():
  reference = by_path(language_model("softmax").init(KEY))
  for attention in ("relative", "performer(features=4)", "pooling", "talking_heads|softmax"):
    params = by_path(language_model(attention).init(KEY))
    shared = set(reference) & set(params)
    assert len(shared) >= len(reference) - 8
    assert all(jnp.array_equal(reference[path], params[path]) for path in shared)


def test_no_two_kernels_of_a_model_start_alike():
  kernels = [leaf for path, leaf in by_path(language_model().init(KEY)).items() if path.endswith("kernel")]
  starts = {tuple(kernel.reshape(-1)[:4].tolist()) for kernel in kernels}
  assert len(starts) == len(kernels)


def test_fixed_leaves_keep_their_path_and_reach_the_variant(filled):
  model = language_model("performer(features=4)", layers=1)
  params, apply = filled(model), jax.jit(model.apply)
  fixed = params["decoder"]["layers"]["0"]["attention"]["params"]["fixed"]
  before = apply(params, TOKENS).logits
  fixed["directions"] = 2 * fixed["directions"]
  assert not jnp.allclose(before, apply(params, TOKENS).logits)


def test_parameters_of_another_model_are_refused_by_the_first_name_that_does_not_fit(filled):
  params = filled(language_model("relative"))
  with pytest.raises(ValueError, match="have an unknown 'decoder/layers/0/attention/params/keys'"):
    language_model("softmax").bind(params)
  with pytest.raises(ValueError, match="lack 'decoder/layers/0/attention/params/keys'"):
    language_model("relative").bind(filled(language_model("softmax")))


def test_a_model_binds_within_jit_and_grad(filled):
  model = language_model(layers=1)
  params = filled(model)
  grads = jax.jit(jax.grad(lambda p: model.apply(p, TOKENS).logits.std()))(params)
  assert jax.tree.structure(grads) == jax.tree.structure(params)
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))


def test_a_missing_key_stays_missing():
  assert named_key(None, "dropout") is None
  assert not jnp.array_equal(jax.random.key_data(named_key(KEY, "a")), jax.random.key_data(named_key(KEY, "b")))
