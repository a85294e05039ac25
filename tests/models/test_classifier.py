"""Encoders and decoders that classify texts, and the registry of all classifiers."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.config import ModelConfig
from attention_lab.models.classifier import ARCHITECTURES, ClassifierConfig, build
from attention_lab.models.embedding import summed
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.models.pooling import AttentionPooling, last, mean

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
VALID = jnp.arange(6)[None] < jnp.array([[4], [6]])
SMALL = {"width": 16, "heads": 2, "layers": 1}


def classifier(**fields):
  config = ClassifierConfig(**SMALL | fields)
  return functional(lambda key: build(config, 11, 12, 3, key=key))


def logits(model, params, *args, **kwargs):
  return jax.jit(model.apply)(params, *args, **kwargs).logits


def names(model):
  leaves = jax.tree_util.tree_leaves_with_path(jax.eval_shape(model.init, KEY))
  return {jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves}


@pytest.mark.parametrize(
  "architecture, pooling, attention",
  [
    ("encoder", "auto", "softmax|linear"),
    ("encoder", "first", "softmax"),
    ("encoder", "attention", "softmax"),
    ("decoder", "auto", "softmax|linear"),
    ("decoder", "mean", "softmax"),
  ],
)
def test_padding_changes_no_class_whatever_stands_there(filled, architecture, pooling, attention):
  model = classifier(architecture=architecture, pooling=pooling, attention=attention, layers=1 + ("|" in attention))
  params = filled(model)
  run = jax.jit(model.apply)
  padded = run(params, TOKENS, valid=VALID).logits
  other = run(params, TOKENS.at[0, 4:].set(jnp.array([9, 10])), valid=VALID).logits
  chex.assert_trees_all_equal(padded, other)
  chex.assert_trees_all_close(padded[:1], logits(model, params, TOKENS[:1, :4]), atol=1e-5)
  chex.assert_trees_all_close(padded[1:], logits(model, params, TOKENS[1:]), atol=1e-5)


def test_a_decoder_classifies_what_a_language_model_of_its_parameters_has_at_the_last_token(filled):
  model = classifier(architecture="decoder", norm="rms", mlp="swiglu")
  params = filled(model)
  config = ModelConfig(norm="rms", mlp="swiglu", **SMALL)
  language = functional(lambda key: TransformerLM(config, 11, 12, key=key))
  hidden = language.bind({name: params[name] for name in ("decoder", "tokens")}).hidden(TOKENS).logits
  at = hidden[jnp.arange(2), jnp.array([3, 5])]
  expected = at @ params["head"]["kernel"] + params["head"]["bias"][None]
  chex.assert_trees_all_close(logits(model, params, TOKENS, valid=VALID), expected, atol=1e-5)


def test_pooling_is_over_valid_tokens_alone():
  x = jnp.arange(24.0).reshape(2, 4, 3)
  valid = jnp.array([[True, True, False, False], [False, True, False, True]])
  np.testing.assert_array_equal(last(x, valid), np.stack([x[0, 1], x[1, 3]]))
  np.testing.assert_array_equal(last(x), x[:, 3])
  np.testing.assert_array_equal(mean(x, valid), np.stack([(x[0, 0] + x[0, 1]) / 2, (x[1, 1] + x[1, 3]) / 2]))


def test_attention_pooling_is_softmax_from_the_probe_then_a_map_with_a_residual(filled):
  config = ClassifierConfig(**SMALL)
  pool = functional(lambda key: AttentionPooling(config, key=key))
  params, x = filled(pool), jax.random.normal(KEY, (2, 6, 16))
  weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  attention, rows = weights["attention"], []
  for row, valid in zip(np.asarray(x, np.float64), np.asarray(VALID), strict=True):
    q, k, v = (
      np.einsum("td,dnh->nth", source, attention[name]["kernel"]) + attention[name]["bias"][:, None]
      for name, source in (("query", weights["probe"][0]), ("key", row), ("value", row))
    )
    scores = np.where(valid, np.exp(np.einsum("nth,nsh->nts", q, k) / 8**0.5), 0.0)
    read = np.einsum("nts,nsh->tnh", scores / scores.sum(-1, keepdims=True), v)[0]
    read = np.einsum("nh,nhd->d", read, attention["out"]["kernel"]) + attention["out"]["bias"]
    normed = (read - read.mean()) / np.sqrt(read.var() + 1e-6) * weights["norm"]["scale"] + weights["norm"]["bias"]
    up = normed @ weights["mlp"]["up"]["kernel"] + weights["mlp"]["up"]["bias"]
    gelu = 0.5 * up * (1 + np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3)))
    rows.append(read + gelu @ weights["mlp"]["down"]["kernel"] + weights["mlp"]["down"]["bias"])
  chex.assert_trees_all_close(pool.apply(params, x, VALID), np.float32(rows), atol=1e-4, rtol=1e-4)


def test_types_are_vectors_that_are_added_and_0_where_none_are_given(filled):
  model = classifier(types=2)
  params = filled(model)
  types = jnp.array([[0, 0, 0, 1, 1, 1]] * 2)
  plain, zeros, typed = (logits(model, params, TOKENS, types=t) for t in (None, 0 * types, types))
  chex.assert_trees_all_equal(plain, zeros)
  assert not np.allclose(plain, typed, atol=1e-3)
  assert np.isnan(logits(model, params, TOKENS, types=types + 1)).all()
  assert names(model) - names(classifier()) == {
    "types/table",
    "encoder/embedding_norm/scale",
    "encoder/embedding_norm/bias",
  }


def test_a_sentence_is_the_sum_of_its_words_weighed_by_place_and_dimension():
  x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
  counts = np.array([[4, 1, 0], [2, 3, 4]])
  expected = np.zeros((2, 3, 5))
  for b in range(2):
    for t in range(3):
      J = counts[b, t]
      for j in range(1, J + 1):
        for d in range(1, 6):
          expected[b, t, d - 1] += ((1 - j / J) - d / 5 * (1 - 2 * j / J)) * x[b, t, j - 1, d - 1]
  present = jnp.arange(4)[None, None, :] < counts[..., None]
  chex.assert_trees_all_close(summed(jnp.asarray(x), present), np.float32(expected), atol=1e-6)


@pytest.mark.parametrize("architecture", list(ARCHITECTURES))
def test_every_model_reads_sentences_whose_padding_does_not_matter_and_whose_order_does(filled, architecture):
  fields = SMALL if architecture in ("encoder", "decoder") else {"width": 16}
  config = ClassifierConfig(architecture=architecture, **fields)
  model = functional(lambda key: build(config, 11, 12, 3, key=key))
  params = filled(model)
  sentences = TOKENS.reshape(2, 3, 2)
  plain = logits(model, params, sentences)
  chex.assert_trees_all_close(plain, logits(model, params, jnp.pad(sentences, ((0, 0), (0, 0), (0, 2)))), atol=1e-5)
  assert not np.allclose(plain, logits(model, params, sentences[:, :, ::-1]), atol=1e-4)


@pytest.mark.parametrize("architecture", ["encoder", "decoder"])
def test_gradients_are_finite_and_reach_every_parameter_in_bfloat16_and_with_dropout(filled, architecture):
  pooling = "attention" if architecture == "encoder" else "auto"
  fields = {"norm_place": "post", "mlp": "swiglu", "dtype": "bfloat16", "dropout": 0.1, "types": 2}
  model = classifier(architecture=architecture, pooling=pooling, **fields)

  def loss(params):
    output = model.apply(params, TOKENS, valid=VALID, key=KEY).logits
    chex.assert_shape(output, (2, 3))
    assert output.dtype == jnp.float32
    return jnp.sum(output[:, 0] ** 2)

  gradients = jax.jit(jax.grad(loss))(filled(model))
  chex.assert_tree_all_finite(gradients)
  idle = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients)
    if not np.abs(leaf).max()
  }
  assert not {name for name in idle if not name.endswith("key/bias")}  # to which softmax is blind


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_architecture_is_one_signature(filled, architecture):
  config = ClassifierConfig(architecture=architecture, width=16)
  model = functional(lambda key: build(config, 11, 12, 3, key=key))
  padded = logits(model, filled(model), TOKENS, valid=VALID)
  chex.assert_shape(padded, (2, 3))
  assert padded.dtype == jnp.float32
  assert np.isfinite(padded).all()


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"architecture": "encoderr"}, "--config.model.architecture=encoderr is unknown, did you mean 'encoder'"),
    ({"pooling": "max"}, "--config.model.pooling=max is unknown.*; choices: auto, mean, first, last, attention"),
    ({"architecture": "decoder", "pooling": "first"}, "the first token of a decoder reads no other; give last"),
    ({"types": -1}, "--config.model.types=-1 is negative; 0 means none"),
  ],
)
def test_settings_that_do_not_fit_are_one_line_that_names_the_flag(fields, message):
  with pytest.raises(ValueError, match=message) as caught:
    jax.eval_shape(classifier(**fields).init, KEY)
  assert "\n" not in str(caught.value)


def test_types_without_a_table_and_an_encoder_of_causal_layers_are_refused(filled):
  plain, causal = classifier(), classifier(attention="stick_breaking")
  with pytest.raises(ValueError, match=r"give --config.model.types=2, or leave them out"):
    plain.apply(filled(plain), TOKENS, types=TOKENS)
  with pytest.raises(Unsupported, match="StickBreaking is causal by construction"):
    causal.apply(filled(causal), TOKENS)
