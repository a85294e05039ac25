"""Texts to classes: from the user's file to numbers, errors and tables; what is refused before the file is read."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.data import controls
from attention_lab.models.layers import named_key
from attention_lab.tasks import text_classification
from attention_lab.train import loop, restored
from attention_lab.train.evaluation import Evaluator

KEY = jax.random.key(0)
EXAMPLES, NAMES = 150, ["dull", "fine", "grand"]


@pytest.fixture(scope="module")
def table(tmp_path_factory):
  """A file of texts, half of them longer than 32 words, which name their class."""
  draws, path = np.random.default_rng(0), tmp_path_factory.mktemp("table") / "rows.csv"
  with path.open("w", newline="") as file:
    rows = csv.writer(file)
    rows.writerow(["text", "label"])
    for number in range(EXAMPLES):
      name = NAMES[number % 3]
      fillers = draws.integers(0, 40, draws.integers(35, 60) if number % 2 else draws.integers(3, 20))
      rows.writerow([" ".join([f"n{number}", name, *(f"w{word}" for word in fillers)]), name])
  return str(path)


@pytest.fixture(scope="module")
def mesh():
  return meshes.make_mesh(MeshConfig(data=1), jax.devices()[:1])


def configure(table, *, model=(), data=(), **fields):
  """One layer, 16 wide, on words."""
  config = text_classification.Config(**{"steps": 6, "batch": 16} | fields)
  config.mesh.data = 1
  layers = {} if dict(model).get("architecture") in ("cnn", "bag_of_words") else {"layers": 1}
  config.model = dataclasses.replace(config.model, **{"width": 16, "dropout": 0.0} | layers | dict(model))
  config.data = dataclasses.replace(config.data, path=table, tokenizer="word", vocabulary=0, length=64, **dict(data))
  return config


def build(table, workdir="", **fields):
  return text_classification.build(configure(table, **fields), workdir)


@pytest.mark.parametrize("architecture", ["encoder", "cnn"])
def test_batches_by_length_evaluate_to_the_same_numbers(architecture, table, mesh):
  model = {"architecture": architecture}
  wide, narrow = (build(table, model=model, data={"buckets": on}) for on in (False, True))
  assert narrow.source.splits["test"].widths == (32, 64)
  params = jax.jit(wide.model.init)(KEY)
  (expected,), (judgement,) = (Evaluator(task, mesh, 8).judge(params, "test") for task in (wide, narrow))
  assert judgement.metrics["accuracy"] == expected.metrics["accuracy"]
  assert judgement.metrics["loss"] == pytest.approx(expected.metrics["loss"], abs=1e-6)
  assert judgement.metrics == pytest.approx(expected.metrics, abs=1e-5)
  assert judgement.tables == expected.tables
  rows = [{row["index"]: (row["input"], row["predicted"]) for row in judged.errors} for judged in (judgement, expected)]
  assert rows[0] == rows[1]


@pytest.fixture(scope="module")
def run(table, mesh, tmp_path_factory):
  """(folder, configuration, results, lines) of a run over two widths."""
  folder, lines = tmp_path_factory.mktemp("run"), []
  config = configure(table, evaluate_every=3)
  task = text_classification.build(config, str(folder))
  (result,) = loop.run(task, config, folder, mesh=mesh, log=lines.append)
  return folder, config, result, lines


def test_two_widths_take_two_programs_whatever_the_number_of_steps(run):
  _, _, _, lines = run
  compiled = [line for line in lines if "compiled for" in line]
  assert len(compiled) == 1
  assert "2 programs" in compiled[0]


def test_a_run_says_all_metrics_and_where_it_is_wrong(run):
  folder, _, result, _ = run
  names = {"accuracy", "loss", "precision", "recall", "f1", "roc_auc", "calibration_error"}
  assert set(result["metrics"]["test"]) == names
  rows = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
  tables = {entry["split"]: entry["tables"] for entry in json.loads((folder / "tables.json").read_text())}
  for split in ("validation", "test"):
    matrix, mistakes = np.array(tables[split]["confusion"]), [row for row in rows if row["split"] == split]
    assert tables[split]["classes"] == NAMES
    assert len(mistakes) == matrix.sum() - matrix.trace()
    assert result["metrics"][split]["accuracy"] == pytest.approx(matrix.trace() / matrix.sum())
    assert all(f" {row['label']} " in row["input"] and row["predicted"] != row["label"] for row in mistakes)
    confidence = [row["confidence"] for row in mistakes]
    assert confidence == sorted(confidence, reverse=True)


def test_a_folder_alone_evaluates_to_the_same_numbers(run):
  folder, _, result, _ = run
  saved = restored.restore(folder, log=lambda line: None)
  (judged,) = Evaluator(saved.task, saved.mesh, saved.config.batch).judge(saved.params, "test")
  assert judged.metrics == pytest.approx(result["metrics"]["test"], rel=1e-6)


def test_layers_are_inspected_and_only_where_there_is_attention(run, table):
  folder, _, _, _ = run
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  inspected = [row for row in rows if row["split"] == "inspect"]
  assert [row["step"] for row in inspected] == [3, 6]
  assert all(row["layer_0/entropy"] > 0 and row["layer_0/largest_logit"] > 0 for row in inspected)
  assert build(table, model={"architecture": "lstm"}).inspect is None


def test_a_limit_holds_for_the_reference_lines_too(table):
  whole, few = build(table), build(table, data={"limit": 6})
  split = few.source.splits["train"]
  assert len(split) == few.source.metadata["sizes"]["train"] == 6
  texts, label = [split.describe(i) for i in range(6)], split[np.arange(6)]["label"]
  assert all(f" {NAMES[number]} " in text for text, number in zip(texts, label, strict=True))
  test = few.source.splits["test"]
  asked = test[np.arange(len(test))]["label"]
  line = controls.tfidf(texts, label, [test.describe(i) for i in range(len(test))], asked)
  assert few.source.controls[controls.TFIDF] == line < whole.source.controls[controls.TFIDF]
  assert few.source.controls["largest class"] == np.mean(asked == np.bincount(label).argmax())


def test_folds_cut_train_and_validation_anew_and_leave_test(table):
  plain = build(table).source
  folded = [build(table, data={"folds": 3, "fold": fold}).source for fold in range(3)]
  texts = [
    {split.describe(i) for i in range(len(split))} for split in (source.splits["validation"] for source in folded)
  ]
  both = {
    split.describe(i) for name in ("train", "validation") for split in [plain.splits[name]] for i in range(len(split))
  }
  assert set.union(*texts) == both
  assert sum(map(len, texts)) == len(both)
  for number, source in enumerate(folded):
    assert source.metadata["fold"] == {"folds": 3, "fold": number}
    assert source.digests["test"] == plain.digests["test"]
    assert len(source.splits["train"]) + len(source.splits["validation"]) == len(both)
  limited = build(table, data={"folds": 3, "limit": 20}).source
  assert (len(limited.splits["train"]), limited.digests["validation"]) == (20, folded[0].digests["validation"])


def test_a_fold_is_judged_with_its_own_texts(table, mesh):
  task = build(table, model={"architecture": "bag_of_words"}, data={"folds": 3, "fold": 1})
  (judged,) = Evaluator(task, mesh, 16).judge(jax.jit(task.model.init)(KEY), "validation")
  assert judged.errors
  assert all(f" {row['label']} " in row["input"] for row in judged.errors)


@pytest.mark.parametrize(
  "model, codes",
  [
    ({"attention": "softmax"}, "rope"),
    ({"attention": "alibi", "architecture": "decoder"}, "none"),
    ({"attention": "softmax", "positions": "learned"}, "learned"),
    ({"architecture": "lstm"}, "none"),
    ({"architecture": "bag_of_words"}, "none"),
  ],
)
def test_positions_are_those_of_the_architecture(table, model, codes):
  assert build(table, model=model).resolved_positions == codes


REFUSED = {
  "architecture": ({"architecture": "encodr"}, r"architecture=encodr is unknown, did you mean 'encoder'"),
  "pooling": ({"pooling": "max"}, r"pooling=max is unknown"),
  "pooling of a decoder": ({"architecture": "decoder", "pooling": "first"}, r"pooling=first with .*decoder"),
  "heads": ({"heads": 3}, r"heads=3 does not divide --config\.model\.width=16"),
  "types": ({"types": 5}, r"types=5: a text has no types of tokens; give 0, or 2"),
  "attention of a baseline": (
    {"architecture": "cnn", "attention": "linear"},
    r"attention=linear means nothing to cnn",
  ),
  "positions of a baseline": (
    {"architecture": "bag_of_words", "positions": "rope"},
    r"positions=rope means nothing to bag_of_words",
  ),
  "a reader": (
    {"architecture": "lstm", "pooling": "attention", "attention": "fourier"},
    r"attention=fourier.* cross-attention",
  ),
  "a decoder": (
    {"architecture": "decoder", "attention": "linformer"},
    r"linformer.* is not causal, and text_classification",
  ),
  "a grid": ({"attention": "region"}, r"region.* needs a grid, and text_classification has sequences"),
  "an encoder": ({"attention": "memorizing"}, r"memorizing.* is causal by construction, and text_classification"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_is_refused_before_data_are_read(name, table, monkeypatch):
  model, message = REFUSED[name]
  monkeypatch.setattr(text_classification.labelled, "load", _never)
  with pytest.raises(ValueError, match=message) as caught:
    build(table, model=model)
  assert "\n" not in str(caught.value)
  assert isinstance(caught.value, Unsupported) == (name in ("a reader", "a decoder", "a grid", "an encoder"))


def _never(*args, **kwargs):
  raise AssertionError("data was read")


@pytest.mark.parametrize(
  "model",
  [
    {"architecture": "decoder", "pooling": "attention", "types": 2},
    {"architecture": "bilstm", "pooling": "attention", "attention": "additive"},
  ],
)
def test_other_architectures_learn_with_every_matrix(table, model):
  task = build(table, model={"dropout": 0.1} | model)
  params, batch = jax.jit(task.model.init)(KEY), jax.tree.map(jnp.asarray, task.source.splits["train"][np.arange(6)])
  step = jax.jit(jax.value_and_grad(lambda params, key: task.loss(params, batch, key)[0]))
  (value, gradient), (other, _) = step(params, named_key(KEY, "a")), step(params, named_key(KEY, "b"))
  assert np.isfinite([value, other]).all()
  assert value != other
  still = [path for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if leaf.ndim > 1 and not np.any(leaf)]
  names = {jax.tree_util.keystr(path, simple=True, separator="/") for path in still}
  assert not {name for name in names if not name.endswith("bias")}
