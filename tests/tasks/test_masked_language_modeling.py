"""The pre-training of BERT against dense NumPy, and what a fine-tune takes from it."""

import dataclasses
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.models import bert
from attention_lab.tasks import masked_language_modeling, text_classification
from attention_lab.train import restored
from attention_lab.workflows import training

KEY = jax.random.key(0)
LENGTH = 23  # of which no share of 15 % is whole
SMALL = {"layers": 1, "width": 16, "heads": 2, "dropout": 0.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """Twenty texts of twelve sentences."""
  path, draws = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
  for document in range(20):
    sentences = [[f"w{draws.integers(30)}" for _ in range(draws.integers(2, 9))] for _ in range(12)]
    (path / f"{document:02}.txt").write_text(" ".join(f"{' '.join(sentence)} end." for sentence in sentences))
  return str(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """Texts of the same words, by whether the first is good."""
  path, draws = tmp_path_factory.mktemp("table") / "rows.tsv", np.random.default_rng(1)
  rows = [f"w{15 * (n % 2) + draws.integers(15)} w{draws.integers(30)} n{n}\t{'ab'[n % 2]}" for n in range(60)]
  path.write_text("\n".join(["text\tlabel", *rows]))
  return str(path)


def small(module, path, *, model=(), data=(), **fields):
  config = module.Config(**{"steps": 2, "batch": 8} | fields)
  config.mesh.data = 1
  config.model = dataclasses.replace(config.model, **SMALL | dict(model))
  defaults = {"path": path, "length": LENGTH, "tokenizer": "word", "vocabulary": 0}
  config.data = dataclasses.replace(config.data, **defaults | dict(data))
  return config


@pytest.fixture(scope="module")
def built(folder):
  """(the task, parameters that are all away from where they start)."""
  task = masked_language_modeling.build(small(masked_language_modeling, folder), "")
  params = jax.jit(task.model.init)(KEY)
  draws = np.random.default_rng(3)
  return task, jax.tree.map(lambda x: x + jnp.asarray(0.1 * draws.normal(size=x.shape), x.dtype), params)


def device(batch):
  return jax.tree.map(jnp.asarray, batch)


def hidden(task, params, batch, shown):
  """Hidden states `B T D` of the whole rows, in float64."""
  valid = np.arange(LENGTH)[None] < batch["length"][:, None]
  run = jax.jit(lambda params, *args: task.model.apply(params, args[0], valid=args[1], types=args[2]).logits)
  return np.asarray(run(params, *map(jnp.asarray, (shown, valid, batch["types"]))), np.float64)


def told(params, states):
  """Log-probabilities of every token of the vocabulary, and of both answers about the pair, as published."""
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  x = states @ p["masked"]["dense"]["kernel"] + p["masked"]["dense"]["bias"]
  x = 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
  x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
  x = x * p["masked"]["norm"]["scale"] + p["masked"]["norm"]["bias"]
  token_logits = x @ p["tokens"]["embedding"].T + p["masked"]["bias"]
  first = np.tanh(states[:, 0] @ p["pooler"]["kernel"] + p["pooler"]["bias"])
  pairs = first @ p["next"]["kernel"] + p["next"]["bias"]
  return tuple(logits - np.log(np.exp(logits).sum(-1, keepdims=True)) for logits in (token_logits, pairs))


def at(logs, targets):
  return np.take_along_axis(logs, targets[..., None], axis=-1)[..., 0]


def test_the_loss_is_cross_entropy_over_the_chosen_tokens_and_over_pairs(built):
  task, params = built
  batch, metadata = task.source.splits["train"][np.arange(9)], task.source.metadata
  ids = tuple(sorted({*metadata["special"].values(), metadata["end_of_text"]}))
  tokens, length = jnp.asarray(batch["tokens"]), jnp.asarray(batch["length"])
  drawn = bert.mask_tokens(KEY, tokens, length, ids, metadata["vocabulary"], metadata["special"]["mask"])
  shown, chosen = map(np.asarray, drawn)
  log_probs, pairs = told(params, hidden(task, params, batch, shown))
  expected = {
    "masked_loss": -at(log_probs, batch["tokens"])[chosen].mean(),
    "next_loss": -at(pairs, batch["next"]).mean(),
  }
  total, logged = jax.jit(lambda params, batch: task.loss(params, batch, None))(params, device(batch))
  assert {name: float(logged[name]) for name in expected} == pytest.approx(expected, rel=2e-5)
  assert float(total) == pytest.approx(sum(expected.values()), rel=2e-5)
  assert chosen.sum() == sum(math.ceil(0.15 * (n - 3) - 1e-9) for n in batch["length"])


def test_evaluation_sums_what_the_fixed_masks_ask_and_no_padding(built):
  task, params = built
  split = task.source.splits["validation"]
  score, total = jax.jit(task.score), {}
  for part in evaluation_batches(split, 3):
    for name, value in score(params, device(part)).items():
      total[name] = total.get(name, 0.0) + float(value)
  batch = split[np.arange(len(split))]
  log_probs, pairs = told(params, hidden(task, params, batch, batch["masked"]))
  chosen, labels = batch["chosen"], batch["next"]
  expected = {
    "nll": -at(log_probs, batch["tokens"])[chosen].sum(),
    "correct": (log_probs.argmax(-1) == batch["tokens"])[chosen].sum(),
    "tokens": chosen.sum(),
    "next_nll": -at(pairs, labels).sum(),
    "next_correct": (pairs.argmax(-1) == labels).sum(),
    "pairs": len(split),
  }
  assert len(split) % 3
  assert total == pytest.approx(expected, rel=2e-5)
  metrics = task.summarize(total)
  assert metrics["loss"] == pytest.approx(expected["nll"] / chosen.sum(), rel=2e-5)
  assert metrics["next_accuracy"] == pytest.approx((pairs.argmax(-1) == labels).mean())
  assert metrics["accuracy"] == total["correct"] / total["tokens"]
  assert metrics["next_loss"] == total["next_nll"] / total["pairs"]


def test_training_draws_anew_and_evaluation_does_not(built):
  task, params = built
  batch = device(task.source.splits["validation"][np.arange(8)]) | {"weight": jnp.ones(8)}
  loss, score = jax.jit(task.loss), jax.jit(task.score)
  values = [float(loss(params, batch, key)[1]["masked_loss"]) for key in (KEY, KEY, jax.random.key(1))]
  assert values[0] == values[1] != values[2]
  other = batch | {"masked": batch["tokens"]}
  assert float(score(params, batch)["nll"]) == float(score(params, batch)["nll"]) != float(score(params, other)["nll"])


@pytest.mark.parametrize("length", [7, 20, 41])
def test_no_chosen_token_is_lost_where_states_are_gathered(length):
  tokens = np.random.default_rng(length).integers(4, 50, (64, length), dtype=np.int32)
  places = np.broadcast_to(np.arange(length, dtype=np.float32)[None, :, None], (64, length, 2))

  @jax.jit
  def gathered(tokens, places):
    _, chosen = bert.mask_tokens(KEY, tokens, jnp.full(64, length, jnp.int32), (0, 1, 2, 3), 50, 3)
    return chosen, masked_language_modeling._gathered(places, tokens, chosen)

  chosen, (states, targets, weights) = jax.device_get(gathered(tokens, places))
  assert weights.shape == (64, math.ceil(0.15 * length))
  np.testing.assert_array_equal(weights.sum(axis=1), chosen.sum(axis=1))
  row, column = np.nonzero(chosen)
  np.testing.assert_array_equal(states[weights > 0, 0], column)
  np.testing.assert_array_equal(targets[weights > 0], tokens[row, column])


REFUSED = {
  "types": ({"types": 3}, {}, r"--config\.model\.types=3: a pair of texts has two; give 2"),
  "folds": ({}, {"folds": 5}, r"--config\.data\.folds=5: training draws its own masks"),
  "causal": ({"attention": "memorizing"}, {}, r"memorizing.* is causal by construction, and masked_language_modeling"),
  "heads": ({"heads": 3}, {}, r"--config\.model\.heads=3 does not divide"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_data_are_read(name, folder, monkeypatch):
  model, data, message = REFUSED[name]
  monkeypatch.setattr(masked_language_modeling.masked, "load", _never)
  with pytest.raises(ValueError, match=message) as caught:
    masked_language_modeling.build(small(masked_language_modeling, folder, model=model, data=data), "")
  assert "\n" not in str(caught.value)
  assert isinstance(caught.value, Unsupported) == (name == "causal")


def _never(*args, **kwargs):
  raise AssertionError("data was read")


@pytest.fixture(scope="module")
def before(folder, tmp_path_factory):
  """The folder of a pre-training."""
  workdir = tmp_path_factory.mktemp("runs") / "bert"
  training.train(masked_language_modeling, small(masked_language_modeling, folder), str(workdir))
  return workdir


def fine_tune(table, source, *, model=(), data=()):
  """Settings that leave to the pre-training what shapes the arrays."""
  config = text_classification.Config(steps=2, batch=8, pretrained=str(source))
  config.mesh.data, config.checkpoint.every, config.optimizer.learning_rate = 1, 1, 0.0
  config.model = dataclasses.replace(config.model, dropout=0.0, **dict(model))
  config.data = dataclasses.replace(config.data, path=table, length=LENGTH, **dict(data))
  return config


def leaves(params):
  pairs = jax.tree_util.tree_leaves_with_path(jax.device_get(params))
  return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in pairs}


def test_a_fine_tune_takes_settings_tokenizer_and_arrays_and_goes_on_without_their_folder(
  before, table, tmp_path, capsys
):
  source, workdir = shutil.copytree(before, tmp_path / "bert"), tmp_path / "run"
  training.train(text_classification, fine_tune(table, source), str(workdir))
  output = capsys.readouterr().out
  assert f"as in {source}: model.layers 1, model.width 16, model.heads 2, model.types 2, data.tokenizer word" in output
  assert "arrays are the pre-trained ones; fresh: head" in output
  assert (workdir / "tokenizer.json").read_bytes() == (source / "tokenizer.json").read_bytes()
  original, taken = (leaves(restored.restore(path).params) for path in (source, workdir))
  shared = {name for name in taken if name.startswith(("encoder/", "tokens/", "types/"))}
  assert set(taken) - shared == {"head/kernel", "head/bias"}
  for name in shared:
    np.testing.assert_array_equal(taken[name], original[name])
  shutil.rmtree(source)
  final = json.loads((workdir / "final.json").read_text())
  (workdir / "final.json").unlink()
  shutil.rmtree(workdir / "checkpoints" / "2")
  training.train(text_classification, fine_tune(table, source), str(workdir))
  assert "restored step 1 of 2" in capsys.readouterr().out
  resumed = json.loads((workdir / "final.json").read_text())
  assert resumed[0]["metrics"] == final[0]["metrics"]


@pytest.mark.parametrize(
  "fields, message",
  [
    ({"model": {"width": 32}}, r"is of another model: config\.model\.width is 16 there and 32 here"),
    (
      {"model": {"norm": "rms", "types": 1}},
      r'norm is "layer" there and "rms" here; config\.model\.types is 2 there and 1 here; give the values from there',
    ),
    ({"data": {"tokenizer": "char"}}, r'config\.data\.tokenizer is "word" there and "char" here'),
  ],
)
def test_a_fine_tune_of_another_model_or_tokenizer_is_refused_with_its_fields(fields, message, before, table, tmp_path):
  with pytest.raises(ValueError, match=message) as caught:
    training.train(text_classification, fine_tune(table, before, **fields), str(tmp_path / "run"))
  assert "\n" not in str(caught.value)
  assert not (tmp_path / "run").exists()


def test_a_folder_with_another_tokenizer_than_the_pretrained_one_is_refused(before, table, tmp_path):
  build = text_classification.build
  build(small(text_classification, table), str(tmp_path))
  with pytest.raises(ValueError, match=r"tokenizer\.json is not the tokenizer of"):
    build(small(text_classification, table, pretrained=str(before)), str(tmp_path))
