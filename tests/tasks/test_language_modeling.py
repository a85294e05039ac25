"""Perplexity per word, bits per byte and nats per token of one text, whatever cuts it into tokens and rows."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.data.corpora import user_text
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.data.tokenizer import Tokenizer
from attention_lab.tasks import language_modeling, text_classification
from attention_lab.train import pretrained
from attention_lab.train import workdir as workdirs

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A hundred documents of words of one to three letters, some of two bytes."""
  path, draws = tmp_path_factory.mktemp("texts"), np.random.default_rng(0)
  for document in range(100):
    sentence = ["".join(draws.choice(list("abcdé"), draws.integers(1, 4))) for _ in range(draws.integers(5, 15))]
    (path / f"{document:03}.txt").write_text(" ".join(sentence), encoding="utf-8")
  return str(path)


def configure(folder, *, model=(), **data):
  """One layer, 16 wide."""
  config = language_modeling.Config()
  config.model = dataclasses.replace(config.model, **{"layers": 1, "width": 16} | dict(model))
  defaults = {"path": folder, "length": 64, "vocabulary": 0}
  config.data = dataclasses.replace(config.data, **defaults | data)
  return config


def build(folder, workdir="", **fields):
  return language_modeling.build(configure(folder, **fields), workdir)


def summed(task, params, batches):
  """The sums of all batches, by one program."""
  score, total = jax.jit(task.score), {}
  for batch in batches:
    for name, value in score(params, jax.tree.map(jnp.asarray, batch)).items():
      total[name] = total.get(name, 0.0) + float(value)
  return total


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("tokenizer", ["char", "word", "byte"])
def test_a_model_that_knows_nothing_pays_the_logarithm_of_the_vocabulary_for_each_token(tokenizer, packing, folder):
  task = build(folder, tokenizer=tokenizer, packing=packing)
  params = jax.tree.map(lambda leaf: 0.0 * leaf, jax.jit(task.model.init)(KEY))
  texts = list(user_text(folder).splits["test"].values())
  count = {"char": len, "word": lambda text: len(text.split()), "byte": lambda text: len(text.encode())}[tokenizer]
  tokens = sum(map(count, texts)) + len(texts) - (not packing)  # an end of text after each, unpacked between them
  word_count, size = sum(len(text.split()) for text in texts), sum(len(text.encode()) for text in texts)
  sums = summed(task, params, evaluation_batches(task.source.splits["test"], 2))
  assert (sums["tokens"], sums["words"], sums["bytes"]) == (tokens, word_count, size)
  nats = tokens * math.log(task.source.metadata["vocabulary"])
  metrics = task.summarize(sums)
  assert set(metrics) == {"bits_per_byte", "word_perplexity", "loss", "accuracy"}
  assert metrics["word_perplexity"] == pytest.approx(math.exp(nats / word_count), rel=1e-4)
  assert metrics["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
  assert metrics["loss"] == pytest.approx(nats / tokens, rel=1e-5)


def test_a_perplexity_beyond_all_numbers_is_cut():
  sums = {"nll": 1e6, "tokens": 10.0, "correct": 0.0, "bytes": 10.0, "words": 0.0}
  assert language_modeling.summarize(sums)["word_perplexity"] == math.exp(language_modeling.LARGEST_EXPONENT)


@pytest.mark.parametrize("positions", ["rope", "learned"])
def test_packed_documents_cost_what_each_costs_alone(positions, folder, tmp_path):
  task = build(folder, str(tmp_path), model={"positions": positions}, tokenizer="char", packing=True)
  params = jax.jit(task.model.init)(KEY)
  split = task.source.splits["test"]
  assert split.arrays["segments"].max() > 1
  tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
  documents = [tokenizer.encode(text) for text in user_text(folder).splits["test"].values()]
  assert max(map(len, documents)) < 63  # each fits a row
  alone = np.zeros((2, len(documents), 65), np.int32)
  for row, ids in enumerate(documents):
    alone[0, row, 1 : len(ids) + 1], alone[1, row, : len(ids) + 2] = ids, 1  # between two ends of text
  none = np.zeros(len(documents), np.int32)
  rows = {"tokens": alone[0], "segments": alone[1], "bytes": none, "words": none, "weight": np.ones(len(none), "f4")}
  sums = summed(task, params, evaluation_batches(split, 4))
  expected = summed(task, params, [rows])
  for name in ("nll", "correct", "tokens"):
    assert sums[name] == pytest.approx(expected[name], rel=1e-5)


def test_the_training_loss_of_a_packed_batch_is_the_mean_over_its_targets(folder):
  task = build(folder, tokenizer="char", packing=True)
  params, batch = jax.jit(task.model.init)(KEY), task.source.splits["train"][np.arange(4)]
  value, logged = jax.jit(lambda params, batch: task.loss(params, batch, None))(
    params, jax.tree.map(jnp.asarray, batch)
  )
  sums = summed(task, params, [batch | {"weight": np.ones(4, np.float32)}])
  segments = batch["segments"]
  targets = ((segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)).sum()
  assert sums["tokens"] == targets < 4 * 64
  assert float(value) == float(logged["loss"]) == pytest.approx(sums["nll"] / targets, rel=1e-5)


def test_layers_are_inspected_on_packed_text_too(folder):
  for packing in (False, True):
    task = build(folder, tokenizer="char", packing=packing)
    params, batch = jax.jit(task.model.init)(KEY), task.source.splits["validation"][np.arange(2)]
    stats = jax.jit(task.inspect)(params, jax.tree.map(jnp.asarray, batch))
    assert 0 < float(stats["layer_0/entropy"]) < math.log(64)
    assert float(stats["layer_0/largest_logit"]) > 0


@pytest.mark.parametrize(
  "model, data, message",
  [
    ({}, {"folds": 3}, r"--config\.data\.folds=3: windows of one document would stand in two parts; give 0"),
    ({"attention": "fourier"}, {}, r"fourier.* is not causal, and language_modeling"),
    ({"kv_heads": 3}, {}, r"--config\.model\.kv_heads=3 does not divide"),
    ({"attention": "axial"}, {}, r"axial.* needs a grid, and language_modeling has sequences: set its field 'columns'"),
    ({"attention": "softmax+swin"}, {}, r"swin.* needs a grid, and language_modeling"),
    (
      {"attention": "softmax|long_convolution", "layers": 2},
      {"packing": True},
      r"long_convolution.* does not honour segments: give --config\.data\.packing=false",
    ),
  ],
)
def test_what_cannot_be_is_refused_before_data_are_read(model, data, message, folder, monkeypatch):
  monkeypatch.setattr(language_modeling.text, "load", _never)
  with pytest.raises(ValueError, match=message) as caught:
    build(folder, model=model, **data)
  assert "\n" not in str(caught.value)


def _never(*args, **kwargs):
  raise AssertionError("data was read")


def test_a_tokenizer_that_is_none_is_refused_and_nothing_is_written(folder, tmp_path):
  with pytest.raises(ValueError, match=r"--config\.data\.tokenizer=chars is no tokenizer, did you mean 'char'"):
    build(folder, str(tmp_path), tokenizer="chars")
  assert not list(tmp_path.iterdir())


def test_a_given_prefix_is_read_both_ways_and_is_no_target(folder):
  task = build(folder, tokenizer="char", prefix=9)
  params, batch = jax.jit(task.model.init)(KEY), jax.tree.map(jnp.asarray, task.source.splits["train"][np.arange(2)])
  loss = jax.jit(lambda batch: task.loss(params, batch, None)[0])
  assert not batch["mask"][:, :8].any()
  first = batch | {"mask": batch["mask"].at[:, 9:].set(0.0)}  # token 9 alone is a target
  later = first | {"tokens": first["tokens"].at[:, 10:].set(3)}
  early = first | {"tokens": first["tokens"].at[:, 2].set(3 - first["tokens"][:, 2] % 2)}
  assert float(loss(first)) == pytest.approx(float(loss(later)), rel=1e-6)
  assert abs(float(loss(first)) - float(loss(early))) > 1e-6
  hidden = jax.jit(lambda tokens: language_modeling._run(task.model, params, {"tokens": tokens}, None, 9)[1].logits)
  states = [
    np.asarray(hidden(inputs["tokens"])) for inputs in (first, first | {"tokens": first["tokens"].at[:, 8].add(1)})
  ]
  assert np.abs(states[0][:, 0] - states[1][:, 0]).max() > 1e-6  # the first token reads the last of the prefix


def test_a_language_model_becomes_a_decoder_that_classifies(folder, tmp_path):
  language = configure(folder, tokenizer="word")
  source = workdirs.claim(tmp_path / "language", language_modeling.NAME, language, (0,))
  source_params = jax.jit(language_modeling.build(language, str(source)).model.init)(jax.random.key(1))
  (tmp_path / "rows.tsv").write_text("\n".join(["text\tlabel", *(f"ab c n{n}\t{n % 2}" for n in range(40))]))
  config = text_classification.Config(pretrained=str(source))
  config.model.architecture, config.data.path = "decoder", str(tmp_path / "rows.tsv")
  assert "model.width 16" in pretrained.adopt(config, source)
  assert pretrained.check(config, source) == language
  task = text_classification.build(config, "")
  fresh = jax.device_put(jax.jit(task.model.init)(KEY), meshes.replicated(meshes.make_mesh(MeshConfig())))
  merged, line = pretrained.overlaid(fresh, source_params)
  assert line.endswith("fresh: head")
  after, before = (dict(jax.tree_util.tree_leaves_with_path(jax.device_get(tree))) for tree in (merged, source_params))
  taken = [path for path in after if path[0].key != "head"]
  assert {path[0].key for path in taken} == {"decoder", "tokens"}
  assert all((after[path] == before[path]).all() for path in taken)
