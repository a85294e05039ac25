"""What every baseline that classifies texts promises; the recurrence against a plain loop."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.models.baselines.convolution import WINDOWS
from attention_lab.models.baselines.recurrent import Cell
from attention_lab.models.classifier import ClassifierConfig, build
from attention_lab.models.functional import functional

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6, 7], [7, 1, 5, 0, 0, 0, 0]])
LENGTHS = jnp.array([7, 3])
VALID = jnp.arange(7)[None] < LENGTHS[:, None]
EVERY = {
  "bag": {"architecture": "bag_of_words"},
  "cnn": {"architecture": "cnn"},
  "lstm": {"architecture": "lstm", "layers": 2},
  "bilstm": {"architecture": "bilstm", "layers": 2, "pooling": "mean"},
  "bilstm and additive": {"architecture": "bilstm", "layers": 1, "pooling": "attention", "attention": "additive"},
}


def classifier(mesh=None, **fields):
  config = ClassifierConfig(**{"width": 6, "heads": 2} | fields)
  return functional(lambda key: build(config, 9, 7, 3, key=key, mesh=mesh))


def logits(model, params, *args, **kwargs):
  return jax.jit(model.apply)(params, *args, **kwargs).logits


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("name", EVERY)
def test_every_parameter_learns_and_no_padding_is_read(name, filled):
  model = classifier(**EVERY[name])
  params = filled(model)

  @jax.jit
  def both(params, tokens):
    def loss(params, tokens):
      scores = model.apply(params, tokens, valid=VALID).logits
      return jnp.sum(scores * jnp.arange(1.0, 7.0).reshape(2, 3)), scores

    return jax.value_and_grad(loss, has_aux=True)(params, tokens)

  (_, before), gradient = both(params, TOKENS)
  (_, after), _ = both(params, TOKENS.at[1, 3:].set(8))
  chex.assert_trees_all_equal(before, after)
  alone = logits(model, params, TOKENS[1:, :3])
  chex.assert_trees_all_close(before[1:], alone, atol=1e-5)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
    assert np.any(leaf), jax.tree_util.keystr(path)


@pytest.mark.parametrize("name", ["bag", "cnn", "lstm", "bilstm and additive"])
def test_only_a_bag_of_words_sees_no_order(name, filled):
  model = classifier(**EVERY[name])
  params = filled(model)
  forward, backward = (logits(model, params, tokens) for tokens in (TOKENS[:1], TOKENS[:1, ::-1]))
  assert np.allclose(forward, backward, atol=1e-5) == (name == "bag")


@pytest.mark.parametrize("backward", [False, True])
def test_a_recurrence_is_the_published_loop_and_holds_its_state_on_padding(backward, filled):
  cell = functional(lambda key: Cell(3, 4, key=key))
  params = filled(cell)
  x = np.random.default_rng(0).normal(size=(2, 7, 3)).astype(np.float32)
  states, last = cell.apply(params, jnp.asarray(x), VALID, backward=backward)
  kernel, bias = np.asarray(params["input"]["kernel"]), np.asarray(params["input"]["bias"])
  recurrent = np.asarray(params["recurrent"]).reshape(4, 4, 4)
  for row in range(2):
    h, c, steps = np.zeros(4), np.zeros(4), range(int(LENGTHS[row]))
    for t in reversed(steps) if backward else steps:
      i, f, g, o = (x[row, t] @ kernel[:, gate] + h @ recurrent[:, gate] + bias[gate] for gate in range(4))
      c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
      h = sigmoid(o) * np.tanh(c)
      np.testing.assert_allclose(states[row, t], h, atol=1e-5)
    np.testing.assert_allclose(last[row], h, atol=1e-5)


def test_a_fresh_cell_forgets_slowly():
  params = functional(lambda key: Cell(3, 4, key=key)).init(KEY)
  np.testing.assert_array_equal(params["input"]["bias"], np.array([[0.0], [1.0], [0.0], [0.0]]) * np.ones((4, 4)))


def test_a_text_cnn_is_the_largest_of_its_windows(filled):
  model = classifier(architecture="cnn")
  params = jax.tree.map(np.asarray, filled(model))
  table = params["tokens"]["embedding"] * 6**0.5
  expected = []
  for tokens, length in zip(np.asarray(TOKENS), np.asarray(LENGTHS), strict=True):
    rows = np.concatenate([table[tokens[:length]], np.zeros((max(WINDOWS) - 1, 6))])
    features = []
    for size in WINDOWS:
      window = params["windows"][str(size)]
      each = [np.einsum("wi,wio->o", rows[t : t + size], window["kernel"]) + window["bias"] for t in range(length)]
      features.append(np.maximum(each, 0).max(axis=0))
    expected.append(np.concatenate(features) @ params["head"]["kernel"] + params["head"]["bias"])
  np.testing.assert_allclose(logits(model, params, TOKENS, valid=VALID), np.stack(expected), atol=1e-5)


def test_attention_over_states_is_bahdanaus_sum(filled):
  model = classifier(architecture="lstm", layers=1, pooling="attention", attention="additive", heads=1)
  params = jax.tree.map(np.asarray, filled(model))
  attention, combine = params["attention"], params["combine"]
  x = params["tokens"]["embedding"][TOKENS] * 6**0.5
  states, last = functional(lambda key: Cell(6, 6, key=key)).apply(params["layers"]["0"]["0"], jnp.asarray(x), VALID)
  q, k, v = (
    np.einsum("...d,dh->...h", rows, attention[name]["kernel"][:, 0]) + attention[name]["bias"][0]
    for name, rows in (("query", last), ("key", states), ("value", states))
  )
  scores = np.tanh(q[:, None] + k) @ attention["params"]["per_head"]["vector"][0]
  weights = np.where(VALID, np.exp(scores), 0)
  read = np.einsum("bs,bsh->bh", weights / weights.sum(axis=1, keepdims=True), v)
  read = read @ attention["out"]["kernel"][0] + attention["out"]["bias"]
  both = np.tanh(np.concatenate([read, last], axis=1) @ combine["kernel"] + combine["bias"])
  expected = both @ params["head"]["kernel"] + params["head"]["bias"]
  np.testing.assert_allclose(logits(model, params, TOKENS, valid=VALID), expected, atol=1e-4)


@pytest.mark.parametrize("name", spec.names())
def test_attention_over_states_takes_just_the_variants_that_claim_cross_attention(name):
  model = classifier(architecture="lstm", pooling="attention", attention=name)
  if spec.parse(name).claims().cross:
    assert "attention" in jax.eval_shape(model.init, KEY)
  else:
    with pytest.raises(Unsupported, match=f"attention={name} with pooling=attention"):
      jax.eval_shape(model.init, KEY)


@pytest.mark.parametrize("name", ["bag", "cnn", "lstm"])
def test_dropout_acts_where_there_is_a_key(name, filled):
  model = classifier(**EVERY[name], dropout=0.5)
  params = filled(model)
  still, again, shaken = (model.apply(params, TOKENS, key=key).logits for key in (None, None, jax.random.key(1)))
  chex.assert_trees_all_equal(still, again)
  assert not np.allclose(still, shaken)


def test_types_of_tokens_count_where_the_model_has_a_table_of_them(filled):
  model = classifier(architecture="bag_of_words", types=2)
  params = filled(model)
  types = (TOKENS > 3).astype(jnp.int32)
  assert not np.allclose(logits(model, params, TOKENS), logits(model, params, TOKENS, types=types))
  with pytest.raises(ValueError, match=r"--config\.model\.types=2"):
    classifier(architecture="cnn").apply(filled(classifier(architecture="cnn")), TOKENS, types=types)


@pytest.mark.parametrize(
  ("fields", "named"),
  [
    ({"architecture": "cnn", "attention": "linear"}, "attention=linear means nothing to cnn"),
    ({"architecture": "bag_of_words", "layers": 3}, "layers=3 means nothing to bag_of_words"),
    ({"architecture": "lstm", "attention": "linear"}, "attention=linear means nothing to lstm with pooling=last"),
    ({"architecture": "lstm", "pooling": "first"}, "pooling=first"),
    ({"architecture": "bilstm", "layers": 0}, "layers=0 is less than 1"),
    ({"architecture": "cnn", "dropout": 1.5}, "dropout=1.5"),
    ({"architecture": "lstm", "pooling": "attention", "attention": "additive|softmax"}, "names 2 layers"),
  ],
)
def test_settings_that_a_baseline_would_ignore_are_refused_by_name(fields, named):
  with pytest.raises(ValueError, match=named.replace("|", "\\|")):
    classifier(**fields).init(KEY)


def test_a_recurrence_with_attention_split_over_eight_devices_gives_the_same_logits(filled):
  mesh = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
  tokens, valid = jnp.tile(TOKENS, (2, 1)), jnp.tile(VALID, (2, 1))
  fields = {"architecture": "bilstm", "layers": 1, "pooling": "attention", "attention": "additive", "width": 8}
  model, split = classifier(**fields), classifier(mesh=mesh, **fields)
  params = filled(model)
  lies = (meshes.shardings(params, mesh), meshes.batch_sharding(mesh), meshes.batch_sharding(mesh))
  placed = jax.device_put((params, tokens, valid), lies)
  sharded_logits = logits(split, *placed[:2], valid=placed[2])
  chex.assert_trees_all_close(sharded_logits, logits(model, params, tokens, valid=valid), atol=1e-5)
