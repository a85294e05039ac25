import json

from attention_lab.train.metrics_writer import MetricsWriter


def rows(folder):
  return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_going_on_drops_the_rows_after_the_step_and_an_unfinished_line(tmp_path):
  with MetricsWriter(tmp_path, (0,), steps=10) as log:
    for step in range(1, 8):
      log.write(step, "train", [{"loss": float(step)}])
      log.write(step, "validation", [{"accuracy": step / 10}])
  with (tmp_path / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "spl')
  with MetricsWriter(tmp_path, (0,), steps=10, start=4) as log:
    log.write(5, "validation", [{"accuracy": 1.0}])
    assert log.curve(0, "accuracy") == [[1, 0.1], [2, 0.2], [3, 0.3], [4, 0.4], [5, 1.0]]
  assert [row["step"] for row in rows(tmp_path)] == [1, 1, 2, 2, 3, 3, 4, 4, 5]


def test_what_is_not_finite_becomes_null(tmp_path):
  with MetricsWriter(tmp_path, (0,), steps=10) as log:
    log.write(1, "train", [{"loss": float("nan"), "grad_norm": float("inf")}])
  assert rows(tmp_path) == [{"step": 1, "split": "train", "loss": None, "grad_norm": None}]


def test_a_long_run_keeps_a_thousand_training_rows_and_every_evaluation(tmp_path):
  with MetricsWriter(tmp_path, (0,), steps=2500) as log:
    for step in range(1, 2501):
      log.write(step, "train", [{"loss": 1.0}])
    log.write(1999, "validation", [{"loss": 1.0}])
  steps = [row["step"] for row in rows(tmp_path) if row["split"] == "train"]
  assert steps == [*range(3, 2500, 3), 2500]
  assert rows(tmp_path)[-1]["step"] == 1999


def test_seeds_have_rows_and_curves_of_their_own(tmp_path):
  with MetricsWriter(tmp_path, (7, 3), steps=10) as log:
    log.write(2, "validation", [{"accuracy": 0.1}, {"accuracy": 0.9}])
    assert (log.curve(7, "accuracy"), log.curve(3, "accuracy")) == ([[2, 0.1]], [[2, 0.9]])
  assert [row["seed"] for row in rows(tmp_path)] == [7, 3]
  assert {path.name for path in (tmp_path / "tensorboard").iterdir()} == {"seed_7", "seed_3"}


def test_without_a_folder_the_curve_is_kept():
  with MetricsWriter(None, (0,), steps=10) as log:
    log.write(2, "validation", [{"accuracy": 0.5}])
    assert log.curve(0, "accuracy") == [[2, 0.5]]
