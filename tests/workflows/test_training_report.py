"""The page of a training run says what came out, how it went, what was odd, and how to do it again."""

import json

import pytest

from attention_lab.workflows import training_report

CONFIG = {"seed": 3, "steps": 100, "model": {"attention": "linear", "layers": 2}, "optimizer": {"learning_rate": 0.02}}
RESULT = {
  "seed": 3,
  "parameters": 1200,
  "metrics": {"validation": {"accuracy": 0.75, "loss": 0.5}, "test": {"accuracy": 0.7, "loss": 0.6}},
  "curve": [[50, 0.5], [100, 0.75]],
}


def _metrics(vanishing=0.0):
  for step in range(1, 101):
    norms = {"grad_norm/layer_0": vanishing or 1.0, "grad_norm/layer_1": 1.0, "grad_norm/head": 1.0}
    yield {"step": step, "split": "train", "loss": 2.0 / step, **norms}
    if step % 50 == 0:
      yield {"step": step, "split": "validation", "accuracy": step / 200 + 0.25, "loss": 1.0}


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"experiment": "recall", "config": CONFIG}))
  return tmp_path


def _write(folder, rows, results=None):
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"cut')
  if results:
    (folder / "final.json").write_text(json.dumps(results))
  paths = training_report.write(folder)
  return [path.name for path in paths], (folder / "report.md").read_text()


def test_a_finished_run_shows_curves_metrics_command_and_configuration(folder):
  names, text = _write(folder, _metrics(), [RESULT])
  assert names == ["report.md", "report.html", "train.svg", "validation.svg"]
  assert "Trained to 0.7500 accuracy on the validation split and 0.7000 accuracy on the test split." in text
  assert "ending at 0.75" in text
  assert "| seed 3 | test | 0.7 | 0.6 |" in text
  assert "No layer's gradients vanish or explode." in text
  command = "python -m experiments.recall --config.seed=3 --config.steps=100 --config.model.attention=linear"
  assert command in text
  assert "--config.optimizer.learning_rate=0.02" in text
  assert '| `config.model.attention` | "linear" |' in text


def test_a_layer_whose_gradients_vanish_is_named(folder):
  _, text = _write(folder, _metrics(vanishing=1e-7), [RESULT])
  assert "layer_0 vanishes: its gradient norm is 1.0e-07 of the other parts'" in text


def test_an_unfinished_run_says_so(folder):
  _, text = _write(folder, list(_metrics())[:40])
  assert "Unfinished: 40 of 100 steps are recorded" in text


def test_a_run_without_its_metrics_shows_the_curve_of_its_results(folder):
  (folder / "final.json").write_text(json.dumps([RESULT]))
  assert [path.name for path in training_report.write(folder)] == ["report.md", "report.html", "validation.svg"]
  assert "No gradient norms are recorded" in (folder / "report.md").read_text()


def test_another_folder_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"has no config\.json"):
    training_report.write(tmp_path)
