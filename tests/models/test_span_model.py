"""Spans: two pointers on an encoder, whose parameters come from BERT by path."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.models.bert import Bert
from attention_lab.models.classifier import ClassifierConfig
from attention_lab.models.functional import functional
from attention_lab.models.span_model import SpanModel, answerable

# class 1, separator 2, question 5 and 6, context 7 to 9
TOKENS = jnp.array([[1, 5, 2, 7, 8, 9, 2, 0], [1, 5, 6, 2, 7, 8, 9, 2]])
TYPES = jnp.array([[0, 0, 0, 1, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 1, 1]])
VALID = jnp.arange(8)[None] < jnp.array([[7], [8]])
INSIDE = np.array([[0, 0, 0, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 1, 1, 0]], bool)
FIELDS = {"width": 16, "heads": 2, "layers": 1, "types": 2, "positions": "learned"}


def spans(**fields):
  config = ClassifierConfig(**FIELDS | fields)
  return functional(lambda key: SpanModel(config, 12, 8, key=key))


def test_an_answer_lies_in_the_context_and_not_on_its_separator():
  np.testing.assert_array_equal(answerable(TYPES, VALID), INSIDE)


def test_logits_are_finite_on_the_context_and_the_first_token_only(filled):
  model = spans()
  logits = jax.jit(model.apply)(filled(model), TOKENS, types=TYPES, valid=VALID).logits
  assert (logits.shape, logits.dtype) == ((2, 8, 2), jnp.float32)
  expected = INSIDE | (np.arange(8) == 0)[None]
  for end in range(2):
    np.testing.assert_array_equal(np.isfinite(logits[:, :, end]), expected)
    np.testing.assert_array_equal(np.isneginf(logits[:, :, end]), ~expected)


def test_encoder_tokens_and_types_are_berts_and_the_ends_are_a_linear_map_of_its_states(filled):
  model, config = spans(), ClassifierConfig(**FIELDS)
  bert = functional(lambda key: Bert(config, 12, 8, key=key))
  before, params = filled(bert), filled(model, seed=1)
  shared = ("encoder", "tokens", "types")
  assert set(params) == {*shared, "ends"}
  shapes = [jax.tree.map(jnp.shape, {name: tree[name] for name in shared}) for tree in (before, params)]
  assert shapes[0] == shapes[1]
  params |= {name: before[name] for name in shared}
  hidden = bert.apply(before, TOKENS, types=TYPES, valid=VALID).logits
  expected = hidden @ params["ends"]["kernel"] + params["ends"]["bias"][None, None]
  logits = model.apply(params, TOKENS, types=TYPES, valid=VALID).logits
  chex.assert_trees_all_close(logits[INSIDE], expected[INSIDE], atol=1e-5)
  chex.assert_trees_all_close(logits[:, 0], expected[:, 0], atol=1e-5)


def test_padding_changes_nothing_and_gradients_are_finite(filled):
  model = spans(dropout=0.1)
  params = filled(model)

  def loss(params, tokens):
    logits = model.apply(params, tokens, types=TYPES, valid=VALID, key=jax.random.key(0)).logits
    return jnp.sum(jax.nn.logsumexp(logits, axis=1)) - jnp.sum(logits[:, 4] + logits[:, 0])

  step = jax.jit(jax.value_and_grad(loss))
  value, gradients = step(params, TOKENS)
  chex.assert_tree_all_finite(gradients)
  assert all(jnp.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradients["ends"]))
  assert step(params, TOKENS.at[0, 7].set(11))[0] == value


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"architecture": "bilstm"}, "--config.model.architecture=bilstm is not for spans of a text: .*; give encoder"),
    ({"pooling": "mean"}, "--config.model.pooling=mean is not for spans of a text: .*; give auto"),
    ({"types": 64}, "--config.model.types=64 is not for spans of a text: .*; give 2"),
  ],
)
def test_settings_without_a_use_are_refused_by_name(fields, message):
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(spans(**fields).init, jax.random.key(0))
