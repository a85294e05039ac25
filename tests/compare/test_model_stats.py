"""Statistics of a model before it is trained, against what the model does."""

import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import compiled
from attention_lab import mesh as meshes
from attention_lab.compare.budget import model_stats
from attention_lab.compare.schedule import row_spec
from attention_lab.config import MeshConfig
from attention_lab.tasks import base, image_classification, long_range, recall

T, D, N, L = 32, 32, 2, 2
SOURCES = base.SourceCache()


def on_one_device():
  return meshes.make_mesh(MeshConfig(data=1), jax.devices()[:1])


def small(row, task=recall, **data):
  """(config, task) of a row on a few examples."""
  config = task.Config()
  row_spec.apply(config, row)
  config.batch = 4
  for name, value in (data or {"train": 32, "validation": 8, "test": 8}).items():
    setattr(config.data, name, value)
  return config, task.build(config, "", on_one_device(), SOURCES)


def listops(row):
  return small(row, long_range, name="listops", train=32, validation=8, test=8, length=T, shortest=8)


def digits(row):
  return small(row, image_classification, name="digits")


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ("softmax", L * T * N * (16 + 16) * 4),
    ("softmax@kv_heads=1", L * T * 1 * (16 + 16) * 4),
    ("local(window=8)", L * 8 * N * (16 + 16) * 4),
    ("gated_delta", L * N * 16 * 16 * 4),
    ("performer(features=24)", L * N * 24 * 17 * 4),
    ("mla(kv_rank=8, rope=4)", L * T * (8 + 4) * 4),
    ("softmax@dtype=bfloat16", L * T * N * (16 + 16) * 2),
    ("local(window=8)|gated_delta", (8 * 32 + 16 * 16) * N * 4),
    ("identity", 0),
  ],
)
def test_the_state_has_the_bytes_that_the_variant_must_keep(row, expected):
  assert model_stats.state_bytes(small(row)[1]) == expected


def test_the_state_is_that_of_the_arrays_that_decoding_begins_with():
  _, task = small("local(window=4)|cope")
  state = task.model.bind(task.model.init(jax.random.key(1))).init_state(1)
  sizes = [layer[name].nbytes for layer in state["layers"].values() for name in ("k", "v")]
  assert model_stats.state_bytes(task) == sum(sizes)


@pytest.mark.parametrize("row", ["hierarchical", "hierarchical|softmax"])
def test_a_variant_that_does_not_decode_has_no_state(row):
  assert model_stats.state_bytes(small(row)[1]) is None


@pytest.mark.parametrize("make", [lambda: listops("softmax")[1], lambda: listops("softmax@architecture=lstm")[1]])
def test_a_model_that_does_not_decode_has_no_state(make):
  assert model_stats.state_bytes(make()) is None


@pytest.mark.parametrize(
  ("row", "expected"),
  [
    ("identity", 1),
    ("local(window=4)", 7),
    ("local(window=4)|softmax", T),
    ("local(window=4)+local(window=2)", 7),
    ("linear", T),
    ("local(window=3)@layers=4", 9),
    ("local(window=40)", T),
    ("dilated(window=2, dilation=5)", 3),
    ("block_local(block=8)", 8),
  ],
)
def test_a_causal_model_sees_as_far_as_its_layers_together(row, expected):
  assert model_stats.receptive_field(small(row)[1]) == expected


def test_an_encoder_sees_to_both_sides_and_a_prefix_too():
  assert model_stats.receptive_field(listops("local(window=4)")[1]) == 13
  causal = small("local(window=4)")[1]
  assert model_stats.receptive_field(causal, prefix=T) == 13


def test_windows_on_the_grid_of_an_image_widen_only_where_they_are_shifted():
  assert model_stats.receptive_field(digits("swin(window=2)")[1]) == 4
  assert 4 < model_stats.receptive_field(digits("swin(window=2)|swin(window=2, shift=1)")[1]) <= 16
  assert model_stats.receptive_field(digits("neighbourhood(window=3)@layers=1")[1]) == 9


@pytest.mark.parametrize("row", ["softmax@architecture=lstm", "softmax@architecture=cnn,layers=2"])
def test_a_model_that_is_no_stack_of_attention_has_no_receptive_field(row):
  assert model_stats.receptive_field(listops(row)[1]) is None


def test_a_model_of_several_stages_has_no_receptive_field():
  assert model_stats.receptive_field(digits("softmax@architecture=hierarchical")[1]) is None


@pytest.mark.parametrize(
  "row", ["local(window=3)|dilated(window=2, dilation=4)", "bigbird(block=4, window=1, global_blocks=0, random=1)"]
)
def test_no_output_moves_with_a_token_outside_the_receptive_field(row):
  _, task = small(row)
  module = task.model.bind(task.model.init(model_stats.states.init_key(jnp.uint32(0))))
  tokens = jax.random.randint(jax.random.key(3), (1, T), 0, 32)
  changed = jnp.where(jnp.eye(T, dtype=bool), (tokens + 1) % 32, tokens)
  logits = jax.jit(lambda x: module(x).logits)(jnp.concatenate([tokens, changed]))
  moved = np.asarray(jnp.abs(logits[1:] - logits[:1]).max(axis=-1) > 0)
  assert moved.sum(axis=0).max() == model_stats.receptive_field(task)


def test_many_tokens_are_followed_from_some_positions(monkeypatch):
  monkeypatch.setattr(model_stats, "EXACT_UP_TO", 8)
  monkeypatch.setattr(model_stats, "SAMPLED", 3)
  assert model_stats.receptive_field(small("local(window=4)")[1]) == 7


def fingerprint(row):
  config, task = small(row)
  training = model_stats.training_step(task, config, on_one_device())
  return compiled.fingerprint(training.step.lower(training.state, training.batch))


def test_a_program_has_one_fingerprint_and_another_variant_another():
  first = fingerprint("softmax")
  assert len(first) == 16
  assert first == fingerprint("softmax(scale=None)")
  assert first == fingerprint("local(window=32)"), "a window as long as the sequence is the same program"
  assert len({first, fingerprint("linear"), fingerprint("local(window=4)"), fingerprint("softmax@mlp_width=100")}) == 4


def test_a_fingerprint_is_that_of_any_process():
  folder = pathlib.Path(__file__).parent
  code = "import test_model_stats; print(test_model_stats.fingerprint('local(window=4)+linear'))"
  command = [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(folder)!r}, {str(folder.parents[1])!r}]; {code}"]
  fingerprints = set()
  for seed in ("0", "1"):
    environment = os.environ | {"PYTHONHASHSEED": seed, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    fingerprints.add(done.stdout.split()[-1])
  assert len(fingerprints) == 1


def test_the_shapes_of_a_training_step_are_those_of_the_run():
  config, task = small("softmax")
  single, double = (model_stats.training_step(task, config, on_one_device(), seeds) for seeds in (None, (3, 5)))
  assert single.batch["tokens"].shape == (4, T)
  assert double.batch["tokens"].shape == (2, 4, T)
  assert double.state.step.shape == (2,)
  assert single.batch["tokens"].dtype == jnp.int32
  assert (single.tokens, double.tokens) == (4 * T, 2 * 4 * T)
