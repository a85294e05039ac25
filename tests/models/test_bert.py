"""BERT: two heads on one encoder, whose parameters a classifier takes over by path."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig, ModelConfig
from attention_lab.models import chunked_cross_entropy
from attention_lab.models.bert import Bert
from attention_lab.models.classifier import ClassifierConfig, TransformerClassifier
from attention_lab.models.functional import functional

KEY = jax.random.key(0)
TOKENS = jnp.array([[1, 2, 3, 4, 5, 6], [6, 1, 5, 2, 4, 3]])
TYPES = jnp.array([[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 1]])
VALID = jnp.arange(6)[None] < jnp.array([[4], [6]])
CHOSEN = jnp.array([[0, 1, 0, 1, 0, 0], [0, 0, 0, 0, 1, 1]], jnp.float32)
FIELDS = {"width": 16, "heads": 2, "layers": 1, "norm_place": "post", "positions": "learned"}


def bert(mesh=None, **fields):
  config = ModelConfig(**FIELDS | fields)
  return functional(lambda key: Bert(config, 12, 8, key=key, mesh=mesh))


def losses(model, params, tokens, key=None):
  """Sums over the chosen tokens and over the pairs."""
  module = model.bind(params)
  hidden = module(tokens, types=jnp.tile(TYPES, (len(tokens) // 2, 1)), key=key).logits
  chosen = jnp.tile(CHOSEN, (len(tokens) // 2, 1))
  masked = chunked_cross_entropy.nll_sum(module.masked_head(), module.transform(hidden), tokens, chosen)
  return masked, jnp.sum(
    chunked_cross_entropy.cross_entropy(module.next_logits(hidden), jnp.ones(len(tokens), jnp.int32))
  )


def test_both_heads_are_those_that_are_published(filled):
  model = bert()
  params = filled(model)
  hidden = np.asarray(jax.jit(model.apply)(params, TOKENS, types=TYPES).logits)
  module = model.bind(params)
  masked = params["masked"]
  x = jax.nn.gelu(hidden @ masked["dense"]["kernel"] + masked["dense"]["bias"][None, None])
  x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * masked["norm"]["scale"][None, None] + masked["norm"]["bias"][None, None]
  expected = x @ params["tokens"]["embedding"].T + masked["bias"][None, None]
  logits = module.masked_head().logits(module.transform(jnp.asarray(hidden)))
  chex.assert_trees_all_close(logits, expected, atol=1e-4, rtol=1e-4)
  pooled = jnp.tanh(hidden[:, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"][None])
  expected = pooled @ params["next"]["kernel"] + params["next"]["bias"][None]
  chex.assert_trees_all_close(module.next_logits(jnp.asarray(hidden)), expected, atol=1e-5)


def test_what_enters_the_first_layer_is_the_norm_of_token_type_and_position(filled):
  model = bert()
  params = filled(model)
  module = model.bind(params)
  module.encoder.variants = ()
  table, codes = params["tokens"]["embedding"], params["encoder"]["codes"]["learned"]["table"]
  x = 4 * table[TOKENS] + params["types"]["table"][TYPES] + codes[None, :6]
  x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-6)
  scale, bias = (params["encoder"]["embedding_norm"][name][None, None] for name in ("scale", "bias"))
  chex.assert_trees_all_close(module(TOKENS, types=TYPES).logits, x * scale + bias, atol=1e-5)


def test_a_classifier_takes_over_encoder_tokens_and_types_by_path(filled):
  model, config = bert(), ClassifierConfig(types=2, pooling="first", **FIELDS)
  classifier = functional(lambda key: TransformerClassifier(config, 12, 8, 3, key=key))
  params, fine = filled(model), filled(classifier, seed=1)
  shapes = jax.tree.map(jnp.shape, ({name: fine[name] for name in ("encoder", "tokens", "types")}))
  assert shapes == jax.tree.map(jnp.shape, {name: params[name] for name in ("encoder", "tokens", "types")})
  fine |= {name: params[name] for name in ("encoder", "tokens", "types")}
  hidden = model.apply(params, TOKENS, types=TYPES, valid=VALID).logits
  expected = hidden[:, 0] @ fine["head"]["kernel"] + fine["head"]["bias"][None]
  logits = classifier.apply(fine, TOKENS, types=TYPES, valid=VALID).logits
  chex.assert_trees_all_close(logits, expected, atol=1e-5)


def test_base_size_has_its_published_number_of_parameters():
  """Devlin et al.'s BERT-base, uncased, has 109,482,240 up to the pooler; then come the heads of pre-training."""
  config = ModelConfig(layers=12, width=768, heads=12, positions="learned", norm_place="post")
  model = functional(lambda key: Bert(config, 30_522, 512, key=key))
  shapes = jax.eval_shape(model.init, KEY)
  heads = (768 * 768 + 768) + 2 * 768 + 30_522 + (2 * 768 + 2)
  assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 109_482_240 + heads


def test_what_stands_in_padding_changes_nothing_elsewhere(filled):
  model = bert()
  params, run = filled(model), jax.jit(model.apply)
  hidden = run(params, TOKENS, types=TYPES, valid=VALID).logits
  other = run(params, TOKENS.at[0, 4:].set(9), types=TYPES.at[0, 4:].set(0), valid=VALID).logits
  np.testing.assert_array_equal(hidden[0, :4], other[0, :4])
  np.testing.assert_array_equal(hidden[1], other[1])


@pytest.mark.parametrize("dtype, head", [("float32", 0), ("float32", 1), ("bfloat16", 0)])
def test_gradients_are_finite_and_each_head_leaves_the_other_alone(filled, dtype, head):
  model = bert(dtype=dtype, dropout=0.1)
  gradients = jax.jit(jax.grad(lambda params: losses(model, params, TOKENS, KEY)[head]))(filled(model))
  chex.assert_tree_all_finite(gradients)
  size = {name: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradients[name])) for name in gradients}
  idle = {"pooler", "next"} if head == 0 else {"masked"}
  assert {name for name, largest in size.items() if largest == 0} == idle


def test_eight_devices_give_the_same_losses(filled):
  mesh, tokens = meshes.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), jnp.tile(TOKENS, (2, 1))
  model, split = bert(mlp="swiglu", norm="rms"), bert(mesh, mlp="swiglu", norm="rms")
  params = filled(model)
  placed = jax.device_put((params, tokens), (meshes.shardings(params, mesh), meshes.batch_sharding(mesh)))
  sums = jax.jit(lambda params, tokens: losses(split, params, tokens))(*placed)
  expected = jax.jit(lambda params, tokens: losses(model, params, tokens))(params, tokens)
  chex.assert_trees_all_close(sums, expected, rtol=1e-5)
