"""Cross entropy in chunks is the plain one, and the logits of all positions are never alive together."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import compiled
from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig, ModelConfig
from attention_lab.models import chunked_cross_entropy
from attention_lab.models.functional import functional
from attention_lab.models.language_model import TransformerLM
from attention_lab.tasks import language_modeling
from attention_lab.tasks.base import total_loss

B, T, D = 4, 7, 5


@pytest.fixture
def small_chunks(monkeypatch):
  """At most 3 positions at once, so that neither 28 nor a device's 7 or 14 positions divide."""
  monkeypatch.setattr(chunked_cross_entropy, "MAX_LOGITS", 1)
  monkeypatch.setattr(chunked_cross_entropy, "MIN_CHUNK", 3)


def arrays(by_word, vocabulary, seed=0):
  """(hidden, kernel, bias, targets, weights); some positions do not count, and one counts twice."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  weights = rng.integers(0, 2, (B, T)).astype(np.float32)
  weights[0, 1] = 2.0
  kernel, bias = (normal(vocabulary, D), None) if by_word else (normal(D, vocabulary), normal(vocabulary))
  return (
    normal(B, T, D),
    kernel,
    bias,
    jnp.asarray(rng.integers(0, vocabulary, (B, T)), jnp.int32),
    jnp.asarray(weights),
  )


def value_and_gradients(by_word, mesh, inputs, scale=0.1):
  """Loss, its gradients to hidden states, kernel, bias and weights, and the scores."""

  def loss(hidden, kernel, bias, weights):
    return scale * chunked_cross_entropy.nll_sum(
      chunked_cross_entropy.Head(kernel, bias, by_word, mesh), hidden, inputs[3], weights
    )

  numbers = (0, 1, 3) if by_word else (0, 1, 2, 3)
  hidden, kernel, bias, targets, weights = inputs
  loss_and_gradients = jax.jit(jax.value_and_grad(loss, argnums=numbers))(hidden, kernel, bias, weights)
  score = jax.jit(
    lambda h, k, b: chunked_cross_entropy.score_sums(
      chunked_cross_entropy.Head(k, b, by_word, mesh), h, targets, weights
    )
  )
  return loss_and_gradients, score(hidden, kernel, bias)


@pytest.mark.parametrize("by_word", [True, False])
def test_chunks_give_the_loss_gradients_and_scores_of_the_plain_form(by_word, request):
  inputs = arrays(by_word, 11)
  plain = value_and_gradients(by_word, None, inputs)
  request.getfixturevalue("small_chunks")
  chex.assert_trees_all_close(value_and_gradients(by_word, None, inputs), plain, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("by_word, vocabulary", [(True, 12), (False, 11)])
@pytest.mark.parametrize("sizes", [(2, 2, 2), (1, 4, 2), (8, 1, 1)])
def test_eight_devices_give_the_same_whether_or_not_they_split_examples_and_words(sizes, by_word, vocabulary, request):
  inputs, mesh = arrays(by_word, vocabulary), meshes.make_mesh(MeshConfig(*sizes))
  plain = value_and_gradients(by_word, None, inputs)
  request.getfixturevalue("small_chunks")
  chex.assert_trees_all_close(value_and_gradients(by_word, mesh, inputs), plain, atol=1e-6, rtol=1e-6)


def test_seeds_side_by_side_give_what_each_gives_alone(small_chunks):
  """As several seeds are trained on a GPU: one more axis in front of everything, also over eight devices."""
  mesh, cases = meshes.make_mesh(MeshConfig(2, 2, 2)), [arrays(True, 12, seed) for seed in (0, 1)]

  def loss_and_gradients(hidden, kernel, targets, weights):
    loss = lambda h, k: chunked_cross_entropy.nll_sum(
      chunked_cross_entropy.Head(k, None, True, mesh), h, targets, weights
    )
    return jax.value_and_grad(loss, argnums=(0, 1))(hidden, kernel)

  stacks = [jnp.stack(both) for both in zip(*((h, k, t, w) for h, k, _, t, w in cases), strict=True)]
  together = jax.jit(jax.vmap(loss_and_gradients))(*stacks)
  for seed in (0, 1):
    alone = jax.jit(loss_and_gradients)(*(array[seed] for array in stacks))
    chex.assert_trees_all_close(jax.tree.map(lambda a, i=seed: a[i], together), alone, atol=1e-6, rtol=1e-6)


def test_of_two_equal_logits_the_first_counts_on_any_device(small_chunks):
  """As in argmax, also where the two words lie on different devices."""
  mesh = meshes.make_mesh(MeshConfig(2, 2, 2))
  kernel, weights = jnp.zeros((8, D)), jnp.ones((B, T))
  for target, right in ((0, B * T), (1, 0), (5, 0)):
    head, targets = chunked_cross_entropy.Head(kernel, None, True, mesh), jnp.full((B, T), target)
    sums = jax.jit(functools.partial(chunked_cross_entropy.score_sums, head))(jnp.ones((B, T, D)), targets, weights)
    assert float(sums["correct"]) == right


def test_bfloat16_states_get_gradients_near_those_of_float32(small_chunks):
  hidden, kernel, bias, targets, weights = arrays(False, 11)

  def gradients(dtype):
    loss = lambda h, k: chunked_cross_entropy.nll_sum(chunked_cross_entropy.Head(k, bias, False), h, targets, weights)
    return jax.jit(jax.grad(loss, argnums=(0, 1)))(hidden.astype(dtype), kernel)

  low, exact = gradients(jnp.bfloat16), gradients(jnp.float32)
  assert [leaf.dtype for leaf in low] == [jnp.bfloat16, jnp.float32]
  chex.assert_trees_all_close(low[0].astype(jnp.float32), exact[0], atol=0.05)
  chex.assert_trees_all_close(low[1], exact[1], atol=0.1)


def test_few_logits_take_one_product_and_many_take_chunks_of_at_least_256_positions(monkeypatch):
  def chunk(batch, length, vocabulary):
    layouts = []

    def look(kernel, hidden):
      layouts.append(chunked_cross_entropy._layout(chunked_cross_entropy.Head(kernel, None, True), hidden))

    jax.eval_shape(look, *(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((vocabulary, D), (batch, length, D))))
    return layouts[0] and layouts[0].positions

  assert chunk(16, 128, 512) is None
  assert chunk(8, 512, 512) is None
  assert chunk(8, 513, 512) == 2052  # two equal chunks
  assert chunk(8, 512, 8192) == 256
  assert chunk(8, 512, 50257) == 256
  monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
  assert chunk(8, 512, 4096) is None
  assert chunk(8, 512, 50257) == 2048


WORDS, LENGTH, BATCH = 8192, 512, 8


def loss_of(model, params, batch):
  return language_modeling.loss(model, params, batch, None)[0]


def plain_loss(model, params, batch):
  output = model.apply(params, batch["tokens"][:, :-1])
  return total_loss(jnp.mean(chunked_cross_entropy.cross_entropy(output.logits, batch["tokens"][:, 1:])), output)[0]


@pytest.fixture(scope="module")
def programs():
  """{form: (compiled gradient of a language model's loss, its FLOPs)}, in chunks and plain; nothing is run."""
  config = ModelConfig(width=16, heads=1, layers=1, mlp_width=16)
  model = functional(lambda key: TransformerLM(config, WORDS, LENGTH, key=key))
  params = jax.eval_shape(model.init, jax.random.key(0))
  batch = {"tokens": jax.ShapeDtypeStruct((BATCH, LENGTH + 1), jnp.int32)}
  forms = {}
  for name, loss in (("chunks", loss_of), ("plain", plain_loss)):
    step = jax.value_and_grad(functools.partial(loss, model))
    forms[name] = jax.jit(step).lower(params, batch).compile(), compiled.flops(step, params, batch)
  return forms


def largest(program):
  """Elements of the largest buffer in the program's text."""
  shapes = re.findall(r"\b(?:f32|bf16|s32|pred)\[([\d,]+)\]", program.as_text())
  return max(int(np.prod([int(size) for size in shape.split(",")])) for shape in shapes)


def test_no_buffer_of_the_compiled_program_holds_all_logits(programs):
  assert largest(programs["plain"][0]) >= BATCH * LENGTH * WORDS
  assert largest(programs["chunks"][0]) <= chunked_cross_entropy.MAX_LOGITS


def test_temporaries_fall_to_an_eighth(programs):
  temporaries = {name: compiled.memory(program)["temporaries"] for name, (program, _) in programs.items()}
  assert temporaries["plain"] > 4 * BATCH * LENGTH * WORDS
  assert temporaries["chunks"] < temporaries["plain"] / 8


def test_chunks_do_no_more_arithmetic_than_the_plain_form(programs):
  flops = {name: count for name, (_, count) in programs.items()}
  assert flops["chunks"] < 1.05 * flops["plain"]
