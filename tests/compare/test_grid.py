import json

import pytest

from attention_lab.attention import base
from attention_lab.compare.schedule import grid
from attention_lab.results import records

SETTINGS = {"config.steps": 10, "config.model.width": 8}


def _row(seed):
  return {"seed": seed, "metrics": {"accuracy": 0.5}, "primary": "accuracy", "higher_is_better": True}


def _run(cell):
  return [_row(seed) for seed in cell.seeds]


def _execute(cells, path, run_cell=_run, stamp=None):
  lines = []
  outcomes = ((cell, grid.outcome(cell, run_cell, path.parent / "failures", stamp)) for cell in cells)
  counts = grid.record(outcomes, grid.Progress(len(cells)), lambda row: records.append(path, row), lines.append)
  return counts, lines


def test_plan_is_every_variant_on_every_task():
  cells = grid.plan({"recall": SETTINGS, "digits": {}}, ["softmax", "linear"], range(2))
  assert [(cell.task, cell.attention, cell.seeds) for cell in cells] == [
    ("recall", "softmax", (0, 1)),
    ("recall", "linear", (0, 1)),
    ("digits", "softmax", (0, 1)),
    ("digits", "linear", (0, 1)),
  ]


@pytest.mark.parametrize(
  ("choices", "told"),
  [
    (({}, ["softmax"], [0]), "--task is empty"),
    (({"recall": {}}, [], [0]), "--attention is empty"),
    (({"recall": {}}, ["softmax", "softmax"], [0]), "--attention names softmax twice"),
    (({"recall": {}}, ["softmax"], [1, 1]), "--seeds names 1 twice"),
  ],
)
def test_empty_or_repeated_choice_is_refused(choices, told):
  with pytest.raises(ValueError, match=told):
    grid.plan(*choices)


def test_grid_comes_back_as_it_was_registered(tmp_path):
  cells = grid.plan({"recall": SETTINGS, "digits": {}}, ["softmax", "local(window=3)"], (0, 2))
  path = grid.register(tmp_path / "new", cells)
  assert grid.read(tmp_path / "new") == cells
  assert [file.name for file in path.parent.iterdir()] == ["grid.jsonl"]


def test_variants_seeds_and_tasks_can_be_added_and_stay(tmp_path):
  grid.register(tmp_path, grid.plan({"recall": SETTINGS}, ["softmax"], (0, 1)))
  before = (tmp_path / "grid.jsonl").read_text()
  grid.register(tmp_path, grid.plan({"recall": SETTINGS, "digits": {}}, ["linear", "softmax"], (0, 2)))
  assert (tmp_path / "grid.jsonl").read_text().startswith(before)
  held = {(cell.task, cell.attention): cell.seeds for cell in grid.read(tmp_path)}
  assert held["recall", "softmax"] == (0, 1, 2)
  assert held["digits", "linear"] == (0, 2)


def test_a_cell_under_an_old_spelling_is_the_present_one_and_its_lines_stay(tmp_path):
  grid.register(tmp_path, grid.plan({"recall": SETTINGS}, ["strided(stride=3)"], (0, 1)))
  before = (tmp_path / "grid.jsonl").read_text()
  cells = grid.plan({"recall": SETTINGS}, ["sparse_strided(stride=3)"], (0, 1))
  assert grid.read(tmp_path) == cells
  grid.register(tmp_path, cells)
  assert (tmp_path / "grid.jsonl").read_text() == before
  grid.register(tmp_path, grid.plan({"recall": SETTINGS}, ["sparse_strided(stride=3)"], (0, 1, 2)))
  assert (tmp_path / "grid.jsonl").read_text().startswith(before)
  assert grid.read(tmp_path)[0].seeds == (0, 1, 2)


def test_a_grid_of_before_whose_warm_up_is_0_goes_on_with_the_automatic_one(tmp_path):
  warmup = "config.optimizer.warmup"
  run = {"task": "recall", "attention": "softmax", "seed": 0, "settings": SETTINGS | {warmup: 0}}
  (tmp_path / "grid.jsonl").write_text(json.dumps(run) + "\n")
  with pytest.raises(ValueError, match=r"config\.optimizer\.warmup=-1 \(now 0\)"):
    grid.register(tmp_path, grid.plan({"recall": SETTINGS | {warmup: 0}}, ["linear"], (0,)))
  cells = grid.plan({"recall": SETTINGS | {warmup: -1}}, ["softmax", "linear"], (0,))
  grid.register(tmp_path, cells)
  assert grid.read(tmp_path) == cells


def test_other_settings_in_the_same_workdir_are_refused_by_name_and_change_nothing(tmp_path):
  grid.register(tmp_path, grid.plan({"recall": SETTINGS}, ["softmax"], (0,)))
  before = (tmp_path / "grid.jsonl").read_text()
  with pytest.raises(ValueError, match=r"config\.batch=default \(now 4\), config\.steps=10 \(now 20\)") as told:
    grid.register(
      tmp_path, grid.plan({"recall": {**SETTINGS, "config.steps": 20, "config.batch": 4}}, ["linear"], (0,))
    )
  assert "config.model.width" not in str(told.value)
  assert "\n" not in str(told.value)
  assert (tmp_path / "grid.jsonl").read_text() == before


def test_settings_that_json_writes_otherwise_are_the_same_settings(tmp_path):
  for _ in range(2):
    grid.register(tmp_path, grid.plan({"recall": {"config.shape": (1, 2)}}, ["softmax"], (0,)))
  assert len((tmp_path / "grid.jsonl").read_text().splitlines()) == 1


def test_done_and_refused_runs_are_finished_and_failed_ones_are_pending():
  cells = grid.plan({"recall": {}}, ["a", "b", "c"], (0, 1, 2))
  statuses = {("a", 0): "done", ("a", 2): "failed", ("b", 0): "refused", ("b", 1): "refused", ("b", 2): "refused"}
  rows = [{"task": "recall", "attention": a, "seed": s, "status": status} for (a, s), status in statuses.items()]
  assert [(cell.attention, cell.seeds) for cell in grid.pending(cells, rows)] == [("a", (1, 2)), ("c", (0, 1, 2))]


def test_execution_stamps_and_completes_rows(tmp_path):
  cells = grid.plan({"recall": SETTINGS}, ["softmax"], (0, 1))

  def stamp(cell, seed):
    return {"command": f"run {cell.attention} {seed}", "config": {"config.seed": seed}}

  counts, _ = _execute(cells, tmp_path / "r.jsonl", stamp=stamp)
  rows = records.read(tmp_path / "r.jsonl").rows
  assert counts == {"done": 2, "refused": 0, "failed": 0}
  assert [row["command"] for row in rows] == ["run softmax 0", "run softmax 1"]
  assert rows[0]["config_digest"] == rows[1]["config_digest"] == records.config_digest({})


def test_refusal_and_failure_become_rows_and_the_next_cell_runs(tmp_path):
  def run_cell(cell):
    if cell.attention == "linformer":
      raise base.Unsupported("linformer is not causal: use it in an encoder")
    if cell.attention == "broken":
      raise RuntimeError("out of luck\nsecond line")
    return _run(cell)

  cells = grid.plan({"recall": {}}, ["linformer", "broken", "softmax"], (0, 1))
  counts, lines = _execute(cells, tmp_path / "r.jsonl", run_cell)
  rows = records.read(tmp_path / "r.jsonl").rows
  assert counts == {"done": 2, "refused": 2, "failed": 2}
  assert rows[0]["reason"] == "linformer is not causal: use it in an encoder"
  assert rows[2]["reason"].startswith("RuntimeError: out of luck (traceback in failures/")
  (traceback,) = (tmp_path / "failures").iterdir()
  assert traceback.name in rows[2]["reason"]
  assert "second line" in traceback.read_text()
  assert "run_cell" in traceback.read_text()
  assert sum("failed: RuntimeError" in line for line in lines) == 2


def test_rows_that_arrived_before_a_failure_are_kept(tmp_path):
  def run_cell(_):
    yield _row(0)
    raise RuntimeError("killed")

  cells = grid.plan({"recall": {}}, ["softmax"], (0, 1, 2))
  _execute(cells, tmp_path / "r.jsonl", run_cell)
  rows = records.read(tmp_path / "r.jsonl").rows
  assert [row["status"] for row in rows] == ["done", "failed", "failed"]
  assert grid.pending(cells, rows)[0].seeds == (1, 2)


def test_seed_without_a_row_is_a_failure(tmp_path):
  cells = grid.plan({"recall": {}}, ["softmax"], (0, 1))
  _execute(cells, tmp_path / "r.jsonl", lambda _: [_row(0)])
  assert "no row for seeds 1" in records.read(tmp_path / "r.jsonl").rows[1]["reason"]


def test_keyboard_interrupt_passes_and_a_restart_runs_only_what_is_missing(tmp_path):
  path, ran = tmp_path / "r.jsonl", []

  def run_cell(cell):
    if cell.attention == "linear" and not ran.count("linear"):
      ran.append("linear")
      raise KeyboardInterrupt
    ran.append(cell.attention)
    return _run(cell)

  cells = grid.plan({"recall": {}}, ["softmax", "linear", "pooling"], (0, 1))
  with pytest.raises(KeyboardInterrupt):
    _execute(cells, path, run_cell)
  _execute(grid.pending(cells, records.read(path).rows), path, run_cell)
  assert ran == ["softmax", "linear", "linear", "pooling"]
  rows = records.read(path).rows
  assert len(rows) == len(records.distinct(rows)) == 6
  assert not grid.pending(cells, rows)


def test_failed_run_is_tried_again_and_its_success_is_what_counts(tmp_path):
  path, cells = tmp_path / "r.jsonl", grid.plan({"recall": {}}, ["softmax"], (0,))
  _execute(cells, path, lambda _: 1 / 0)
  _execute(grid.pending(cells, records.read(path).rows), path)
  assert [row["status"] for row in records.distinct(records.read(path).rows)] == ["done"]


def test_killing_and_restarting_anywhere_changes_no_number(tmp_path):
  cells = grid.plan({"recall": {}, "digits": {}}, ["softmax", "linear"], (0, 1))
  _execute(cells, tmp_path / "whole.jsonl")
  whole = (tmp_path / "whole.jsonl").read_bytes()
  path = tmp_path / "cut.jsonl"
  for length in range(0, len(whole), 37):
    path.write_bytes(whole[:length])
    _execute(grid.pending(cells, records.read(path).rows), path)
    rows = sorted(records.distinct(records.read(path).rows), key=records.cell)
    assert rows == sorted(records.read(tmp_path / "whole.jsonl").rows, key=records.cell)
