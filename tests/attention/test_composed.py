"""A mechanism between the parts of a layer is a variant, and its spec says which parts in which order."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import CAUSAL, Dims, spec
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import single_variants, with_rotation
from attention_lab.attention.positions import Positions
from attention_lab.config import ModelConfig
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.position_specs import resolve, to_string
from attention_lab.models.rope import Rope

B, T, N, K, H = 2, 7, 4, 2, 6
DIMS = Dims(N * H, N, K, H, H, 16)
PUBLISHED = [name for name in spec.names() if spec.parse(name).published]


def inputs():
  shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H), (B, T, N * H))
  return [jax.random.normal(jax.random.key(seed), shape) for seed, shape in enumerate(shapes)]


@pytest.mark.parametrize(
  ("text", "canonical"),
  [
    ("conv(4)>softmax>norm()>gate", "conv>softmax>norm>gate"),
    ("nope>conv>qk_norm(kind='l2')>gated_delta(chunk=4)>norm>gate", "published(gated_delta(chunk=4))"),
    ("2*published(ssd)|softmax", "2*published(ssd)|softmax"),
    ("2*conv(3)>linear + softmax", "2*conv(width=3)>linear+softmax"),
    ("conv > (linear+softmax) > gate(per='head')", "conv>(linear+softmax)>gate(per='head')"),
    ("conv>forgetting", "conv>fox"),
  ],
)
def test_a_chain_has_one_canonical_form(text, canonical):
  assert spec.canonical(text) == canonical
  assert spec.layers(canonical, 3) == spec.layers(text, 3)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("published(softmax)", "its paper puts no part around it; write softmax"),
    ("published(ssd, ssd)", "published takes one mechanism"),
    ("conv>qk_norm", "has parts and no mechanism; parts are conv, gate"),
    ("gate", "'gate' is a part of a layer and no mechanism"),
    ("softmax>linear", "chains two mechanisms"),
    ("norm>softmax", "norm stands behind the mechanism"),
    ("softmax>conv", "conv stands before the mechanism"),
    ("conv>conv>softmax", "conv stands twice"),
    ("conv(0)>softmax", "width=0 must be at least 1 token"),
    ("softmax>gate(activation='tanh')", "activation='tanh' must be one of 'silu', 'sigmoid'"),
    ("conv>fourier", "conv needs the projections qkv, and Fourier has no q and k and v"),
    ("conv>softmax>", "malformed attention spec 'conv>softmax>'"),
  ],
)
def test_a_malformed_chain_is_refused_in_one_line(text, message):
  with pytest.raises(ValueError) as refusal:
    spec.parse(text)
  assert message in str(refusal.value)
  assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_layer_of_a_variant_is_that_variant_with_parts(name):
  layer = spec.parse(f"published({name})")
  assert isinstance(layer, Composed)
  assert single_variants(layer) == (spec.parse(name),)


@pytest.mark.parametrize(
  ("text", "positions"),
  [
    ("delta_rule", "rope"),
    ("published(delta_rule)", "none"),
    ("published(retention)", "rope"),
    ("nope>softmax", "none"),
  ],
)
def test_auto_adds_no_position_code_to_a_layer_that_is_published_without(text, positions):
  assert to_string(resolve("auto", spec.layers(text, 2))) == positions


def test_without_parts_in_effect_the_layer_is_its_mechanism():
  q, k, v, x = inputs()
  layer = spec.parse("conv(width=1, activation='none')>softmax")
  params = layer.init(jax.random.key(0), DIMS)
  params["conv"] = jax.tree.map(jnp.ones_like, params["conv"])
  np.testing.assert_array_equal(layer({**params}, q, k, v, x=x), spec.parse("softmax")({}, q, k, v))


@pytest.mark.parametrize("text", ["conv(3)>softmax", "qk_norm>softmax>norm", "conv(3)>softmax+softmax"])
def test_a_rotation_turns_what_the_convolution_and_norms_give_out(text):
  q, k, v, x = inputs()
  plain = spec.parse(text)
  turned = with_rotation(plain, Rope())
  params = turned.init(jax.random.key(0), DIMS)
  shifted = Positions(*(jnp.arange(T)[None] + 100 for _ in "qk"))
  near, far = (turned(params, q, k, v, x=x, mask=CAUSAL, positions=p) for p in (Positions(), shifted))
  np.testing.assert_allclose(near, far, atol=2e-5)
  assert float(jnp.max(jnp.abs(near - plain(plain.init(jax.random.key(0), DIMS), q, k, v, x=x, mask=CAUSAL)))) > 1e-3


@pytest.mark.parametrize(
  "text", ["conv(3)>softmax>gate", "published(retention(chunk=4))+softmax", "published(ssd(chunk=4))"]
)
def test_a_model_of_composed_layers_decodes_as_it_trains(text):
  config = ModelConfig(attention=text, layers=1, width=24, heads=4, mlp_width=24)
  model = TransformerLM(config, 11, T, key=jax.random.key(1))
  tokens = jax.random.randint(jax.random.key(2), (B, T), 0, 11)
  whole = model(tokens).logits
  state, pieces = model.init_state(B), []
  for start, stop in ((0, 4), (4, 5), (5, T)):
    state, logits = model.extend(tokens[:, start:stop], state)
    pieces.append(logits)
  np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), whole, atol=2e-5)


def test_the_state_of_a_layer_holds_the_tail_of_its_convolution():
  bare, layer = spec.parse("ssd"), spec.parse("conv(4)>ssd")
  sizes = [
    sum(leaf.size for leaf in jax.tree.leaves(variant.init_state(1, DIMS, jnp.float32))) for variant in (bare, layer)
  ]
  assert sizes[1] - sizes[0] == 3 * (N * H + K * H + K * H)


def test_rows_may_tune_the_mechanism_inside_its_parts():
  layer = spec.parse("published(gated_linear)")
  assert single_variants(layer)[0].tunable
  changed = dataclasses.replace(layer, mechanism=spec.parse("gated_linear(temperature=4.0)"))
  assert spec.to_string(changed) == "published(gated_linear(temperature=4.0))"
