import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.data.buckets import Bucketed
from attention_lab.tasks.base import EvalResult
from attention_lab.train import evaluation, loop
from attention_lab.train.evaluation import Evaluator


def judged(task):
  """The task, with a judgement that gives back what it was shown."""

  def judge(predictions, split):
    wrong = [{"index": i, "label": 0, "predicted": int(p)} for i, p in enumerate(predictions["class"]) if p]
    return EvalResult(
      {"accuracy": -1.0, "share of class 0": float(np.mean(predictions["class"] == 0))}, {split: 1}, wrong
    )

  def predict(params, batch):
    logits = task.model.apply(params, batch["tokens"])
    return {"logits": logits, "first": batch["tokens"][:, 0], "class": jnp.argmax(logits, axis=-1)}

  return dataclasses.replace(task, predict=predict, judge=judge)


def bucketed(task):
  splits = {name: split_by_width(split) for name, split in task.source.splits.items()}
  return dataclasses.replace(task, source=dataclasses.replace(task.source, splits=splits))


def split_by_width(split):
  lengths = np.random.default_rng(len(split)).integers(1, 4, len(split))
  return Bucketed(split, lengths, (1, 2, 3), ("tokens",))


@pytest.mark.parametrize("sizes, batch", [((1, 1, 1), 4), ((2, 1, 1), 5)])
def test_predictions_are_judged_in_the_order_of_the_split_without_padding(sizes, batch, tiny):
  seen, mesh = {}, meshes.make_mesh(MeshConfig(*sizes))
  plain = bucketed(judged(tiny()))

  def judge(predictions, split):
    seen[split] = predictions
    return plain.judge(predictions, split)

  task = dataclasses.replace(plain, judge=judge)
  params = jax.jit(task.model.init)(jax.random.key(0))
  (result,) = Evaluator(task, mesh, batch).judge(params, "validation")
  split = task.source.splits["validation"]
  apply = jax.jit(task.model.apply)
  rows = [split[np.array([index])] for index in range(len(split))]
  np.testing.assert_array_equal(seen["validation"]["first"], [row["tokens"][0, 0] for row in rows])
  expected = np.concatenate([apply(params, row["tokens"]) for row in rows])
  np.testing.assert_allclose(seen["validation"]["logits"], expected, rtol=1e-5, atol=1e-6)
  right = np.mean(expected.argmax(axis=1) == [row["label"][0] for row in rows])
  assert result.metrics["accuracy"] == pytest.approx(right)
  assert result.metrics["share of class 0"] == pytest.approx(np.mean(expected.argmax(axis=1) == 0))


def test_a_task_says_how_it_predicts_and_how_it_judges_or_neither(tiny):
  with pytest.raises(ValueError, match="predict and judge come together"):
    dataclasses.replace(judged(tiny()), judge=None)


def test_errors_and_tables_of_each_seed_and_split_lie_in_the_folder(tiny, config, one_device, tmp_path):
  task, asked = judged(tiny()), config(steps=3)
  results = loop.run(task, asked, tmp_path / "two", mesh=one_device, seeds=(4, 0), log=lambda line: None)
  single = loop.run(task, asked, tmp_path / "one", mesh=one_device, log=lambda line: None)
  rows = [json.loads(line) for line in (tmp_path / "two" / "errors.jsonl").read_text().splitlines()]
  assert {(row["seed"], row["split"]) for row in rows} <= {(s, n) for s in (4, 0) for n in ("validation", "test")}
  alone = [json.loads(line) for line in (tmp_path / "one" / "errors.jsonl").read_text().splitlines()]
  assert alone == [{name: value for name, value in row.items() if name != "seed"} for row in rows if row["seed"] == 0]
  for split, size in (("validation", 21), ("test", 9)):
    share = single[0]["metrics"][split]["share of class 0"]
    assert len([row for row in alone if row["split"] == split]) == round(size * (1 - share))
    assert results[1]["metrics"][split] == pytest.approx(single[0]["metrics"][split], rel=1e-5)
  tables = json.loads((tmp_path / "two" / evaluation.TABLES).read_text())
  assert tables[-1] == {"seed": 0, "split": "test", "tables": {"test": 1}}


def test_layers_are_inspected_at_every_evaluation_on_two_validation_examples(tiny, config, one_device, tmp_path):
  def inspect(params, batch):
    return {"layer_0/examples": batch["tokens"].shape[0] * jnp.ones(()), "layer_0/sum": jnp.sum(batch["tokens"])}

  task = dataclasses.replace(tiny(), inspect=inspect)
  loop.run(task, config(steps=4, evaluate_every=2), tmp_path, mesh=one_device, log=lambda line: None)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  total = float(task.source.splits["validation"][np.arange(2)]["tokens"].sum())
  wanted = {"split": "inspect", "layer_0/examples": 2.0, "layer_0/sum": total}
  assert [row for row in rows if row["split"] == "inspect"] == [{"step": step, **wanted} for step in (2, 4)]
