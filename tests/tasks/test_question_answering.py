"""Question answering: classes of bAbI with a table of its tasks, spans with exact match and F1."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

from attention_lab.attention.base import Unsupported
from attention_lab.config import MeshConfig
from attention_lab.data import babi, prepared, span_metrics
from attention_lab.data.pipeline import evaluation_batches
from attention_lab.data.tokenizer import TOKENIZER_FILE, train
from attention_lab.mesh import make_mesh
from attention_lab.tasks import question_answering
from attention_lab.train import loop

PLACES = ("attic", "barn", "cellar", "den")
ANSWER = "the old house"


def moves(task, stories, seed):
  """Stories of two moves and a question each; the answer is the second place."""
  rng, rows = np.random.default_rng(seed), []
  for number in range(stories):
    places = rng.permutation(PLACES)[:2].tolist()
    story = [f"Room {number} is {seed}.", *(f"Ada went to the {room}." for room in places)]
    rows.append({"answer": places[1], "question": "Where is Ada?", "story": story, "task": task})
  return rows


def asked(article, number):
  rng = np.random.default_rng((article, number))
  first, second = (" ".join(rng.choice(PLACES, rng.integers(1, 8))) for _ in range(2))
  text = f"Ada met Ben: {first}. Later she moved to {ANSWER} of {number}: {second}. It rained."
  answers = {"text": [ANSWER, "house"], "answer_start": [text.index(ANSWER), text.index("house")]}
  return {"question": f"Where did she move in {number}?", "context": text, "answers": answers, "title": str(article)}


@pytest.fixture
def datasets(monkeypatch):
  """bAbI of two tasks and questions of ten articles, in place of TFDS's."""
  stories = {"train": moves(1, 40, 0) + moves(15, 20, 1), "test": moves(1, 20, 2) + moves(15, 10, 3)}
  spans = {"test": [asked(article, number) for article in range(10) for number in range(2)]}

  def columns(name, split, directory, names):
    rows = (stories if name == "babi" else spans)[split]
    table = {column: [row[column] for row in rows] for column in names}
    return table | ({"task": np.array(table["task"])} if "task" in table else {})

  monkeypatch.setattr(prepared, "columns", columns)
  monkeypatch.setattr(prepared, "check", lambda name, directory, others=(): None)
  monkeypatch.setattr(prepared, "splits", lambda name, directory: {"test": 20})
  kinds = dict.fromkeys(("answers", "context", "question", "title"), "text")
  monkeypatch.setattr(prepared, "features", lambda name, directory: kinds)


def small(name="", model=None, **data):
  config = question_answering.Config(steps=3, batch=8, mesh=MeshConfig(data=1))
  tiny = {"width": 16, "layers": 1, "heads": 2, "dropout": 0.0}
  config.model = dataclasses.replace(config.model, **tiny | (model or {}))
  usual = {"length": 48, "tokenizer": "word"} if name else {"length": 32}
  config.data = dataclasses.replace(config.data, name=name, **usual | data)
  return config


def trained(config, folder):
  task = question_answering.build(config, str(folder))
  mesh = make_mesh(config.mesh, jax.devices()[:1])
  (result,) = loop.run(task, config, folder, mesh=mesh, log=lambda line: None)
  errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
  tables = {row["split"]: row["tables"] for row in json.loads((folder / "tables.json").read_text())}
  return task, result["metrics"], [row for row in errors if row["split"] == "test"], tables["test"]


@pytest.mark.parametrize("sentences", [False, True])
def test_stories_are_judged_task_by_task(datasets, tmp_path, sentences):
  task, metrics, errors, tables = trained(small(sentences=sentences), tmp_path)
  assert set(metrics["test"]) == {"accuracy", "loss", "tasks_solved"}
  assert task.primary == "accuracy"
  assert (task.higher_is_better, task.chance) == (True, 1 / 4)
  by_task = tables["error_by_task"]
  assert {name: (row["task"], row["examples"]) for name, row in by_task.items()} == {
    babi.TASKS[0]: (1, 20),
    babi.TASKS[14]: (15, 10),
  }
  assert sum(row["error"] * row["examples"] for row in by_task.values()) == pytest.approx(len(errors))
  assert metrics["test"]["accuracy"] == pytest.approx(1 - len(errors) / 30)
  for row in errors:
    assert set(row) == {"split", "index", "input", "label", "predicted", "confidence", "task"}
    assert row["task"] == babi.TASKS[0 if row["index"] < 20 else 14]
    assert row["input"].endswith(f"the {row['label']}. Where is Ada?")
    assert row["predicted"] in PLACES
    assert 0.25 < row["confidence"] <= 1


def test_a_task_is_solved_from_95_percent(datasets):
  source = question_answering.build(small(), "").source
  label = source.splits["test"][np.arange(30)]["label"]
  probabilities = np.eye(4, dtype=np.float32)[label]
  probabilities[[0, 20]] = np.roll(probabilities[[0, 20]], 1, axis=1)  # 19 of 20 and 9 of 10 remain right
  task = question_answering.build(small(), "")
  judged = task.judge({"probabilities": probabilities, "label": label}, "test")
  assert judged.metrics == {"tasks_solved": 1.0}
  assert [row["error"] for row in judged.tables["error_by_task"].values()] == pytest.approx([0.05, 0.1])
  assert [row["index"] for row in judged.errors] == [0, 20]


def test_the_model_tells_as_many_types_apart_as_the_data(datasets):
  for name, types in (("", babi.TYPES), ("tiny", 2)):
    task = question_answering.build(small(name), "")
    shapes = jax.eval_shape(task.model.init, jax.random.key(0))
    assert shapes["types"]["table"].shape == (types, 16)


def test_spans_are_judged_by_exact_match_and_f1(datasets, tmp_path):
  task, metrics, errors, tables = trained(small("tiny"), tmp_path)
  names = {"span_accuracy", "start_accuracy", "end_accuracy", "loss", "exact_match", "f1"}
  assert set(metrics["test"]) == names
  assert (task.primary, task.chance) == ("span_accuracy", None)
  assert metrics["test"]["exact_match"] == pytest.approx(1 - len(errors) / 4)
  assert dict(task.source.controls) == {"no answer in any row": 0.0}
  assert tables["questions"] == 4
  assert tables["controls"].keys() == {"F1 of the most similar sentence"}
  assert errors
  for row in errors:
    assert set(row) == {"split", "index", "input", "label", "predicted", "confidence", "f1"}
    assert row["label"] == [ANSWER, "house"]
    assert row["predicted"] in row["input"].split(" | ")[1]
    assert row["f1"] == pytest.approx(span_metrics.best(span_metrics.f1, row["predicted"], row["label"]), abs=1e-4)
    assert 0 < row["confidence"] < 0.5
  assert (tmp_path / TOKENIZER_FILE).exists()


def test_perfect_pointers_answer_every_question_in_any_window(datasets):
  task = question_answering.build(small("tiny", length=22), "")  # windows overlap, and some have no answer
  split = task.source.splits["test"]
  batch = split[np.arange(len(split))]
  start, end = (np.full((len(split), 22), -np.inf, np.float32) for _ in range(2))
  inside = (batch["types"] == 1) & (np.arange(22) < batch["length"][:, None] - 1)
  for logits, name in ((start, "start"), (end, "end")):
    logits[inside] = 0.0
    logits[:, 0] = 0.0
    logits[np.arange(len(split)), batch[name]] = 5.0
  normalizer = np.log(np.exp(start).sum(1)) + np.log(np.exp(end).sum(1))
  assert 0 < (batch["start"] == 0).sum() < len(split)
  judged = task.judge({"start": start, "end": end, "normalizer": normalizer}, "test")
  assert judged.metrics == {"exact_match": 1.0, "f1": 1.0}
  assert judged.errors == []


def test_predictions_of_narrow_batches_are_as_wide_as_the_task(datasets):
  task = question_answering.build(small("tiny", length=64), "")
  batch = next(iter(evaluation_batches(task.source.splits["test"], 4)))
  batch = batch | {name: batch[name][:, :40] for name in ("tokens", "types")}

  def run(key, batch):
    params = task.model.init(key)
    return task.predict(params, batch), task.score(params, batch), task.loss(params, batch, None)[0]

  predicted, sums, loss = jax.jit(run)(jax.random.key(0), batch)
  assert predicted["start"].shape == predicted["end"].shape == (4, 64)
  assert np.isneginf(predicted["start"][:, 40:]).all()
  metrics = task.summarize({name: float(value) for name, value in sums.items()})
  assert metrics["loss"] == pytest.approx(float(loss), rel=1e-5)
  assert abs(metrics["loss"] - math.log(20)) < 1.5


def test_the_tokenizer_of_a_pretrained_run_is_taken_over(datasets, tmp_path):
  before, folder = tmp_path / "before", tmp_path / "fine"
  tokenizer = train("wordpiece", ["Ada met Ben in the old house of room 3."], 60, ("class", "separator", "mask"))
  tokenizer.save(before / TOKENIZER_FILE)
  config = small("tiny", tokenizer="wordpiece", vocabulary=tokenizer.vocabulary)
  config.pretrained = str(before)
  first = question_answering.build(config, str(folder))
  assert (folder / TOKENIZER_FILE).read_text() == (before / TOKENIZER_FILE).read_text()
  shutil.rmtree(before)
  assert question_answering.build(config, str(folder)).source.digests == first.source.digests
  config.data.vocabulary = 30
  with pytest.raises(ValueError, match=r"has another tokenizer .*--config.data.vocabulary="):
    question_answering.build(config, str(folder))


def shown(split):
  return {split.describe(index) for index in range(len(split))}


@pytest.mark.parametrize("name", ["", "tiny"])
def test_folds_are_cut_by_the_loader(datasets, name):
  parts = [question_answering.build(small(name, folds=2, fold=fold), "").source for fold in range(2)]
  assert [part.metadata["fold"] for part in parts] == [{"folds": 2, "fold": 0}, {"folds": 2, "fold": 1}]
  held, tested = ([shown(part.splits[split]) for part in parts] for split in ("validation", "test"))
  assert tested[0] == tested[1]
  assert not held[0] & held[1]


@pytest.mark.parametrize(
  "name, group, fields, message",
  [
    ("", "data", {"task": 21}, "--config.data.task=21 is no task of bAbI; give 1 to 20, or 0"),
    ("", "data", {"tokenizer": "word"}, "--config.data.tokenizer=word means nothing to bAbI"),
    ("", "data", {"vocabulary": 100}, "--config.data.vocabulary=100 means nothing to bAbI"),
    ("", "data", {"length": 5}, "--config.data.length=5 is too short: the question"),
    ("", "data", {"path": "x"}, "--config.data.path=x: "),
    ("", "model", {"types": 3}, "--config.model.types=3: bAbI tells 64 types of tokens apart; give 64, or 0"),
    ("tiny", "data", {"task": 2}, "--config.data.task=2 means nothing to spans"),
    ("tiny", "data", {"sentences": True}, "--config.data.sentences=True means nothing to spans"),
    ("tiny", "data", {"path": "x"}, "--config.data.path=x: questions are read"),
    ("tiny", "data", {"tokenizer": "piece"}, "--config.data.tokenizer=piece is no tokenizer"),
    ("tiny", "model", {"types": 3}, "--config.model.types=3: a row of spans tells 2 types of tokens apart"),
    ("tiny", "model", {"architecture": "lstm"}, "--config.model.architecture=lstm is not for spans"),
  ],
)
def test_bad_settings_are_one_line_that_names_the_flag(datasets, name, group, fields, message, tmp_path):
  config = small(name)
  setattr(config, group, dataclasses.replace(getattr(config, group), **fields))
  with pytest.raises(ValueError, match=message) as caught:
    question_answering.build(config, str(tmp_path))
  assert "\n" not in str(caught.value)
  assert not list(tmp_path.iterdir())


def test_an_unknown_dataset_is_refused_with_the_nearest(tmp_path):
  for name, nearest in (("bab", "babi"), ("squat", "squad")):
    with pytest.raises(ValueError, match=f"--config.data.name={name} .*did you mean '{nearest}'"):
      question_answering.build(small(name, dir=str(tmp_path)), "")


def test_a_model_that_cannot_be_is_refused_before_data_is_read(monkeypatch):
  monkeypatch.setattr(prepared, "columns", None)
  for name in ("", "tiny"):
    with pytest.raises(Unsupported, match="causal by construction"):
      question_answering.build(small(name, {"attention": "fox"}), "")
