"""Language models, classifiers and vision transformers, on shapes as small as they come."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.base import Unsupported
from attention_lab.attention.mask import Mask
from attention_lab.attention.positions import Positions
from attention_lab.config import MeshConfig, ModelConfig
from attention_lab.models.classifier import ClassifierConfig, TransformerClassifier
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.layers import dropout
from attention_lab.models.vision import VisionConfig, sized
from attention_lab.models.vision_transformer import VisionTransformer, patches

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
SMALL = {"width": 16, "heads": 2, "layers": 2}


def language_model(attention="softmax", tied=True, **fields):
  config = ModelConfig(attention=attention, **SMALL | fields)
  return functional(lambda key: TransformerLM(config, 11, 12, key=key, tied=tied))


def logits(model, params, *args, **kwargs):
  return jax.jit(model.apply)(params, *args, **kwargs).logits


def count(model):
  return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(model.init, KEY)))


@pytest.mark.parametrize(
  "attention", ["softmax", "linear", "relative", "local(window=3)", "pooling", "softmax+local(window=3)"]
)
def test_a_later_token_changes_no_earlier_logit(filled, attention):
  model = language_model(attention)
  params = filled(model)
  before, after = (logits(model, params, tokens) for tokens in (TOKENS, TOKENS.at[:, 4].set(9)))
  chex.assert_trees_all_close(before[:, :4], after[:, :4], atol=1e-5)
  assert not np.allclose(before[:, 4:], after[:, 4:], atol=1e-3)


def test_packed_sequences_give_what_each_gives_alone(filled):
  model = language_model("softmax|alibi", positions="learned")
  params = filled(model)
  segments = jnp.array([[1, 1, 2, 2, 2, 2]])
  positions = jnp.array([[0, 1, 0, 1, 2, 3]])
  mask = Mask(causal=True, q_segments=segments, k_segments=segments)
  packed = logits(model, params, TOKENS[:1], mask=mask, positions=Positions(q=positions, k=positions))
  alone = [logits(model, params, TOKENS[:1, span]) for span in (slice(0, 2), slice(2, 6))]
  chex.assert_trees_all_close(packed, jnp.concatenate(alone, axis=1), atol=1e-5)


@pytest.mark.parametrize("attention", ["softmax", "pooling", "alibi", "talking_heads"])
def test_a_model_split_over_eight_devices_gives_the_same_logits(filled, attention):
  mesh = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  config, tokens = ModelConfig(attention=attention, **SMALL | {"layers": 1}), jnp.tile(TOKENS, (2, 1))
  model, split = (functional(lambda key, m=m: TransformerLM(config, 12, 12, key=key, mesh=m)) for m in (None, mesh))
  params = filled(model)
  placed = jax.device_put((params, tokens), (meshes.shardings(params, mesh), meshes.batch_sharding(mesh)))
  chex.assert_trees_all_close(logits(split, *placed), logits(model, params, tokens), atol=1e-5)


@pytest.mark.parametrize("positions", ["none", "learned", "sinusoidal", "rope"])
def test_a_reader_of_both_directions_tells_order_only_through_positions(filled, positions):
  config = ClassifierConfig(positions=positions, **SMALL)
  model = functional(lambda key: TransformerClassifier(config, 11, 12, 3, key=key))
  params = filled(model)
  forward, backward = (logits(model, params, tokens) for tokens in (TOKENS, TOKENS[:, ::-1]))
  assert np.allclose(forward, backward, atol=1e-5) == (positions == "none")


def test_shared_layers_are_one_block_applied_again(filled):
  shared, single = language_model(shared_layers=True, layers=3), language_model(layers=1)
  assert count(shared) == count(single)
  params = filled(language_model(layers=3))
  block = filled(shared)["decoder"]["layers"]["0"]
  params["decoder"]["layers"] = {str(i): block for i in range(3)}
  expected = logits(language_model(layers=3), params, TOKENS)
  params["decoder"]["layers"] = {"0": block}
  chex.assert_trees_all_close(logits(shared, params, TOKENS), expected, atol=1e-6)


def test_fewer_key_heads_are_whole_groups_of_query_heads(filled):
  grouped, full = language_model(heads=4, kv_heads=2, layers=1), language_model(heads=4, layers=1)
  params = filled(grouped)
  expected = logits(grouped, params, TOKENS)
  attention = params["decoder"]["layers"]["0"]["attention"]
  for name in ("key", "value"):
    assert attention[name]["kernel"].shape == (16, 2, 4)
    attention[name] = {leaf: jnp.repeat(array, 2, axis=-2) for leaf, array in attention[name].items()}
  chex.assert_trees_all_close(logits(full, params, TOKENS), expected, atol=1e-5)


def test_an_untied_head_is_a_map_of_its_own():
  assert count(language_model(tied=False)) == count(language_model()) + 16 * 11 + 11


def test_dropout_needs_a_key_and_keeps_the_mean(filled):
  model = language_model(dropout=0.5)
  params = filled(model)
  plain, dropped = logits(model, params, TOKENS), logits(model, params, TOKENS, key=KEY)
  assert not np.allclose(plain, dropped, atol=1e-2)
  chex.assert_trees_all_close(plain, logits(language_model(), params, TOKENS, key=KEY))
  out = np.asarray(dropout(jnp.ones(10_000), 0.25, KEY))
  assert set(np.unique(out)) == {0.0, np.float32(1 / 0.75)}
  assert abs(out.mean() - 1) < 0.03


def test_bfloat16_computes_near_float32_from_float32_parameters_and_gives_float32_logits(filled):
  exact, low = language_model("softmax|linear"), language_model("softmax|linear", dtype="bfloat16")
  params = filled(low)
  assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
  near = logits(low, params, TOKENS)
  assert near.dtype == jnp.float32
  error = jnp.abs(near - logits(exact, params, TOKENS)).max()
  assert 1e-6 < error < 0.1


@pytest.mark.parametrize(
  "size, parameters",
  [("Ti/16", 5_717_416), ("S/16", 22_050_664), ("S/32", 22_878_952), ("B/16", 86_567_656), ("B/32", 88_224_232)],
)
def test_published_sizes_have_the_published_number_of_parameters(size, parameters):
  config = VisionConfig(size=size, pooling="cls", positions="learned")
  assert count(functional(lambda key: VisionTransformer(config, (224, 224, 3), 1000, key=key))) == parameters


def test_gpt2_has_its_published_number_of_parameters():
  config = ModelConfig(layers=12, width=768, heads=12, positions="learned")
  assert count(functional(lambda key: TransformerLM(config, 50_257, 1_024, key=key))) == 124_439_808


@pytest.mark.parametrize(
  "attention, pooling",
  [("softmax", "cls"), ("fourier", "cls"), ("linformer(rank=3)", "cls"), ("pooling", "cls"), ("softmax", "mean")],
)
def test_a_vision_transformer_reads_every_patch(filled, attention, pooling):
  config = VisionConfig(attention=attention, pooling=pooling, patch=2, width=16, heads=2, layers=1)
  model = functional(lambda key: VisionTransformer(config, (4, 6, 1), 3, key=key))
  params = filled(model)
  images = jax.random.uniform(KEY, (1, 4, 6, 1))
  influence = jax.jit(jax.grad(lambda x: model.apply(params, x).logits[0, 0]))(images)
  assert logits(model, params, images).shape == (1, 3)
  assert (jnp.abs(patches(influence, 2)).max(axis=-1) > 0).all()


def test_patches_are_squares_read_row_by_row():
  image = jnp.arange(4 * 6).reshape(1, 4, 6, 1)
  np.testing.assert_array_equal(
    patches(image.astype(jnp.float32), 2)[0, :4], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11], [12, 13, 18, 19]]
  )


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"heads": 3}, "--config.model.heads=3 does not divide --config.model.width=16"),
    ({"kv_heads": 3, "heads": 4}, r"--config.model.kv_heads=3 does not divide --config.model.heads=4"),
    ({"dtype": "flot32"}, r"--config.model.dtype=flot32 is unknown, did you mean 'float32'\?"),
    ({"dropout": 1.0}, r"--config.model.dropout=1.0 is not a rate in \[0, 1\)"),
    ({"layers": 0}, "--config.model.layers=0 is less than 1"),
    ({"attention": "softmax|linear", "shared_layers": True}, "and so one variant, but"),
    ({"attention": "softmax+2*linear"}, "2 heads cannot be shared out as 1[+]2"),
    ({"attention": "pooling", "kv_heads": 1}, "--config.model.kv_heads=1: pooling needs as many"),
  ],
)
def test_settings_that_do_not_fit_are_one_line_that_names_the_flag(fields, message):
  with pytest.raises(ValueError, match=message) as caught:
    jax.eval_shape(language_model(**fields).init, KEY)
  assert "\n" not in str(caught.value)
  assert isinstance(caught.value, Unsupported) == ("pooling" in message)


def test_a_size_writes_out_its_numbers_and_refuses_a_field_against_it():
  assert sized(VisionConfig(size="S/32", layers=12)) == VisionConfig(
    layers=12, width=384, heads=6, mlp_width=1536, patch=32
  )
  with pytest.raises(
    ValueError, match=r"--config\.model\.width=32 contradicts --config.model.size=S/16, which has 384"
  ):
    sized(VisionConfig(size="S/16", width=32))
  with pytest.raises(ValueError, match=r"size=S/61 is unknown, did you mean 'S/16"):
    sized(VisionConfig(size="S/61"))


def test_patches_that_do_not_fill_the_image_are_refused():
  config = dataclasses.replace(VisionConfig(patch=3), **SMALL)
  with pytest.raises(ValueError, match=r"--config\.model\.patch=3 does not divide images of 4×6 pixels"):
    VisionTransformer(config, (4, 6, 1), 3, key=KEY)


def test_more_tokens_than_the_model_was_built_for_are_refused(filled):
  model = language_model(layers=1)
  with pytest.raises(ValueError, match=r"13 tokens are more than the 12"):
    model.apply(filled(model), jnp.zeros((1, 13), jnp.int32))
