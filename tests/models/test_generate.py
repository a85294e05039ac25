"""Decoding: with a state or without, alone or in a batch, the same tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.config import ModelConfig
from attention_lab.models.functional import functional
from attention_lab.models.generate import Sampling, filtered, generate
from attention_lab.models.language_model import TransformerLM

KEY = jax.random.key(0)
PROMPTS = [np.array([3]), np.array([1, 4, 1, 5, 9]), np.array([2, 7, 1])]
STEPS = 6
GREEDY = Sampling(greedy=True)
LOGITS = jnp.log(jnp.array([[0.5, 0.3, 0.15, 0.05]]))


def language_model(attention, **fields):
  config = ModelConfig(attention=attention, **{"width": 16, "heads": 2, "layers": 1} | fields)
  return functional(lambda key: TransformerLM(config, 11, 11, key=key))


def recomputed(model, params, prompt):
  """Greedy decoding by a whole forward pass for each token; padding on the right of a causal model is never read."""
  forward = jax.jit(lambda tokens: model.apply(params, tokens).logits)
  tokens = np.zeros((1, 11), np.int32)
  tokens[0, : len(prompt)] = prompt
  for end in range(len(prompt), len(prompt) + STEPS):
    tokens[0, end] = np.argmax(forward(tokens)[0, end - 1])
  return tokens[0, len(prompt) : len(prompt) + STEPS]


@pytest.mark.parametrize(
  "attention, fields",
  [
    ("softmax", {"kv_heads": 1}),
    ("local(window=3)", {}),
    ("linear", {}),
    ("alibi", {}),
    ("relative(clip=2)", {}),
    ("softmax|pooling", {"dropout": 0.5, "layers": 2}),
    ("softmax", {"positions": "sinusoidal", "shared_layers": True, "layers": 2}),
  ],
)
def test_a_ragged_batch_decodes_as_each_prompt_alone_and_as_without_a_state(filled, attention, fields):
  model = language_model(attention, **fields)
  params = filled(model)
  together = generate(model, params, PROMPTS, STEPS, GREEDY)
  for prompt, tokens in zip(PROMPTS, together, strict=True):
    np.testing.assert_array_equal(tokens, recomputed(model, params, prompt))
  np.testing.assert_array_equal(together[1], generate(model, params, PROMPTS[1:2], STEPS, GREEDY)[0])


def test_extend_in_any_pieces_gives_the_logits_of_one_call(filled):
  model = language_model("softmax|local(window=3)|linear", layers=3, positions="learned")
  params = filled(model)
  extend, tokens = jax.jit(lambda *args: model.bind(params).extend(*args)), jax.random.randint(KEY, (2, 9), 0, 11)
  state, pieces = model.bind(params).init_state(2), []
  for span in (slice(0, 4), slice(4, 5), slice(5, 9)):
    state, logits = extend(tokens[:, span], state)
    pieces.append(logits)
  np.testing.assert_allclose(jnp.concatenate(pieces, axis=1), jax.jit(model.apply)(params, tokens).logits, atol=1e-5)
  assert {leaf.shape[0] for leaf in jax.tree.leaves(state)} == {2}


def test_samples_follow_the_key_and_end_with_the_stop_token(filled):
  model = language_model("softmax")
  params = filled(model)
  first, again, other = (
    generate(model, params, PROMPTS, STEPS, Sampling(temperature=5.0), jax.random.key(k)) for k in (0, 0, 1)
  )
  assert np.array_equal(np.stack(first), np.stack(again))
  assert not np.array_equal(np.stack(first), np.stack(other))
  stop = int(first[1][2])
  stopped = generate(model, params, PROMPTS, STEPS, Sampling(temperature=5.0, stop=stop), jax.random.key(0))
  for row, whole in zip(stopped, first, strict=True):
    ends = np.flatnonzero(whole == stop)
    np.testing.assert_array_equal(row, whole[: ends[0] + 1] if len(ends) else whole)


@pytest.mark.parametrize(
  "sampling, tokens",
  [
    (Sampling(), [0, 1, 2, 3]),
    (Sampling(top_k=2), [0, 1]),
    (Sampling(top_p=0.79), [0, 1]),
    (Sampling(top_p=0.81), [0, 1, 2]),
    (Sampling(top_p=0.01), [0]),
    (Sampling(top_k=3, top_p=0.5), [0]),
    (Sampling(top_k=99), [0, 1, 2, 3]),
  ],
)
def test_top_k_and_top_p_keep_exactly_these_tokens(sampling, tokens):
  assert np.flatnonzero(np.isfinite(filtered(LOGITS, sampling)[0])).tolist() == tokens


@pytest.mark.parametrize(
  "logits, sampling, tokens",
  [
    ([3.0, 1.0, 1.0, 1.0, 0.0], Sampling(top_k=2), [0, 1]),
    ([0.0, 1.0, 1.0, 3.0, 1.0], Sampling(top_k=3), [1, 2, 3]),
    ([0.5] * 6, Sampling(top_k=1), [0]),
    ([0.5] * 8, Sampling(top_p=0.5), [0, 1, 2, 3]),
    ([0.5] * 8, Sampling(top_k=4, top_p=0.5), [0, 1]),
    ([1.0, 2.0, 2.0, 0.0], Sampling(top_k=1, top_p=0.9), [1]),
  ],
)
def test_of_equally_likely_tokens_no_more_stay_than_are_asked_for(logits, sampling, tokens):
  rows = jnp.array([logits, logits])
  for row in filtered(rows, sampling):
    assert np.flatnonzero(np.isfinite(row)).tolist() == tokens


def test_the_temperature_divides_the_differences_of_logits():
  np.testing.assert_allclose(filtered(LOGITS, Sampling(temperature=0.5)), 2 * (LOGITS - LOGITS[0, 0]), rtol=1e-6)


@pytest.mark.parametrize("temperature", [1e-3, 1e-38, 1e-300])
def test_a_cold_distribution_is_the_likeliest_token_alone(temperature):
  logits = jnp.array([[-3.0, 2.0, 7.0, 6.5], [80.0, 90.0, -1e30, 89.0]])
  keys = jax.random.split(KEY, 20)
  drawn = jax.vmap(lambda key: jax.random.categorical(key, filtered(logits, Sampling(temperature=temperature))))(keys)
  np.testing.assert_array_equal(drawn, np.tile([2, 1], (20, 1)))


@pytest.mark.parametrize(
  "prompts, steps, sampling, message",
  [
    ([np.array([1, 2, 3])], 9, GREEDY, "prompt 0 has 3 tokens, and with 9 steps that is more than the 11"),
    ([np.array([1]), np.array([], int)], 1, GREEDY, "prompt 1 is empty"),
    ([np.array([11])], 1, GREEDY, "a token outside the model's vocabulary of 11"),
    ([np.array([1])], 1, Sampling(), "sampling needs a key"),
    ([], 1, GREEDY, "at least one of each"),
  ],
)
def test_requests_that_cannot_be_served_are_refused(filled, prompts, steps, sampling, message):
  model = language_model("softmax")
  with pytest.raises(ValueError, match=message):
    generate(model, filled(model), prompts, steps, sampling)


def test_a_variant_that_cannot_decode_is_refused_by_name(filled):
  model = language_model("linformer(rank=2)")
  with pytest.raises(ValueError, match="Linformer cannot decode step by step"):
    generate(model, filled(model), PROMPTS, 1, GREEDY)


@pytest.mark.parametrize("fields", [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}])
def test_sampling_out_of_range_is_refused(fields):
  with pytest.raises(ValueError, match=next(iter(fields))):
    Sampling(**fields)
