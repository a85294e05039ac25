import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention.positions import Positions
from attention_lab.attention.variants.softmax import Softmax
from attention_lab.config import ModelConfig
from attention_lab.models.classifier import ClassifierConfig, TransformerClassifier
from attention_lab.models.functional import functional
from attention_lab.models.inspection import inspect, shortened
from attention_lab.models.language_model import TransformerLM

T = 12
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, 20, (2, T)))


def model(kind, attention, **changes):
  settings, classes = (ClassifierConfig, [3]) if kind is TransformerClassifier else (ModelConfig, [])
  config = settings(attention=attention, width=16, layers=2, heads=2, **changes)
  made = functional(lambda key: kind(config, 20, T, *classes, key=key))
  return made, jax.jit(made.init)(jax.random.key(0))


def test_the_largest_logit_and_the_entropy_are_those_of_the_textbook():
  made, params = model(TransformerLM, "softmax", kv_heads=1)
  stats = jax.jit(lambda params: inspect(made, params, lambda module: module(TOKENS)))(params)
  decoder = made.bind(params).decoder
  layer = decoder.layers[0]
  x = layer.attention_norm(made.bind(params).tokens(TOKENS, jnp.float32))
  q, k, _ = layer.attention._project(x, Positions())
  logits = np.einsum("BTNH,BSNH->BNTS", q, np.repeat(k, 2, axis=2)) * 8**-0.5
  past = np.tril(np.ones((T, T), bool))
  assert float(stats["layer_0/largest_logit"]) == pytest.approx(np.abs(logits[:, :, past]).max(), rel=1e-5)
  weights = np.where(past, np.exp(logits), 0.0)
  weights /= weights.sum(axis=-1, keepdims=True)
  terms = -weights * np.log(np.where(weights > 0, weights, 1.0))
  assert float(stats["layer_0/entropy"]) == pytest.approx(terms.sum(axis=-1).mean(), rel=1e-4)
  assert set(stats) == {f"layer_{i}/{name}" for i in (0, 1) for name in ("largest_logit", "entropy")}


def test_padding_is_neither_read_nor_counted():
  made, params = model(TransformerClassifier, "softmax")
  valid = jnp.arange(T)[None] < jnp.array([5, 3])[:, None]
  look = jax.jit(lambda tokens, valid: inspect(made, params, lambda module: module(tokens, valid=valid)))
  numbers = lambda *inputs: {name: float(value) for name, value in look(*inputs).items()}
  padded = numbers(TOKENS, valid)
  assert numbers(jnp.where(valid, TOKENS, 7), valid) == pytest.approx(padded, rel=1e-6)
  assert numbers(TOKENS[:, :5], valid[:, :5]) == pytest.approx(padded, rel=1e-4)


@pytest.mark.parametrize(
  "attention, names",
  [("differential", {"largest_logit"}), ("fourier", set()), ("softmax+local(window=3)", {"largest_logit", "entropy"})],
)
def test_what_a_variant_does_not_have_is_left_out(attention, names):
  made, params = model(TransformerClassifier, attention)
  stats = jax.eval_shape(lambda params: inspect(made, params, lambda module: module(TOKENS)), params)
  assert set(stats) == {f"layer_{i}/{name}" for i in (0, 1) for name in names}


def test_recomputed_layers_are_watched_too_and_the_model_is_as_before():
  made, params = model(TransformerClassifier, "softmax", remat="full")
  assert jax.eval_shape(lambda params: inspect(made, params, lambda module: module(TOKENS)), params)
  assert isinstance(made.bind(params).encoder.layers[0].attention.variant, Softmax)


def test_rows_of_tokens_are_shortened_and_images_are_not():
  batch = {"tokens": TOKENS, "length": jnp.array([12, 2]), "image": jnp.zeros((2, 8, 8, 1)), "label": jnp.zeros(2)}
  cut = shortened(batch, 4)
  assert {name: array.shape for name, array in cut.items()} == {
    "tokens": (2, 4),
    "length": (2,),
    "image": (2, 8, 8, 1),
    "label": (2,),
  }
  assert cut["length"].tolist() == [4, 2]
