import json
import math

import numpy as np
import pytest

from attention_lab.results import records


def _done(**fields):
  row = {"task": "recall", "attention": "softmax", "seed": 0, "status": "done", "metrics": {"accuracy": 0.9}}
  return {**row, "primary": "accuracy", "higher_is_better": True, "config_digest": "c", "commit": "a", **fields}


def _failed(**fields):
  return {"task": "recall", "attention": "softmax", "seed": 0, "status": "failed", "reason": "boom", **fields}


def test_rows_come_back_as_they_were_written(tmp_path):
  path = tmp_path / "results.jsonl"
  rows = [_done(seed=seed, curve=[[10, 0.5], [20, 0.75]], attention="local(window=3)|softmax") for seed in range(3)]
  for row in rows:
    records.append(path, row)
  assert records.read(path) == records.Records(rows, [])


def test_a_file_that_does_not_exist_has_no_rows(tmp_path):
  assert records.read(tmp_path / "none.jsonl") == records.Records([], [])


def test_rows_under_an_old_spelling_come_in_the_present_one_and_the_file_stays(tmp_path):
  path = tmp_path / "results.jsonl"
  for attention in ("2*shared|fixed(stride=3)", "pooled@width=32", "softmax"):
    records.append(path, _done(attention=attention))
  before = path.read_bytes()
  attentions = [row["attention"] for row in records.read(path).rows]
  assert attentions == ["2*shared_qk|sparse_fixed(stride=3)", "memory_compressed@width=32", "softmax"]
  assert path.read_bytes() == before
  matrix = tmp_path / "matrix.jsonl"
  records.append_line(matrix, {"variant": "space_time(tokens=3)", "architecture": "decoder"})
  assert records.read_lines(matrix, dict).rows[0]["variant"] == "divided_space_time(tokens=3)"


def test_a_warm_up_of_0_in_a_row_of_before_is_the_automatic_one_and_in_a_new_row_none(tmp_path):
  path, flag = tmp_path / "results.jsonl", "config.optimizer.warmup"
  for seed, (warmup, schema) in enumerate([(0, {}), (5, {}), (0, {"schema": 2}), (-1, {"schema": 2})]):
    records.append(path, _done(seed=seed, config={flag: warmup}, **schema))
  assert [row["config"][flag] for row in records.read(path).rows] == [-1, 5, 0, -1]
  assert records.read(path).rows[0]["config_digest"] == "c"


@pytest.mark.parametrize("lost", [1, 2, 30, 10_000])
def test_killed_write_costs_only_its_own_row(tmp_path, lost):
  path = tmp_path / "results.jsonl"
  for seed in range(3):
    records.append(path, _done(seed=seed))
  *whole, last = path.read_bytes().splitlines(keepends=True)
  path.write_bytes(b"".join(whole) + last[: max(len(last) - lost, 1)])
  survives = lost == 1
  assert [row["seed"] for row in records.read(path).rows] == [0, 1, *([2] * survives)]
  records.append(path, _done(seed=3))
  held = records.read(path)
  assert [row["seed"] for row in held.rows] == [0, 1, *([2] * survives), 3]
  assert held.damaged == ([] if survives else [3])


def test_numbers_that_are_not_finite_are_null_and_arrays_are_lists(tmp_path):
  path = tmp_path / "results.jsonl"
  metrics = {"accuracy": math.nan, "loss": math.inf, "count": np.int64(3), "parts": np.ones(2, np.float32)}
  records.append(path, _done(metrics=metrics, curve=[(1, np.float32(0.5))]))
  (row,) = records.read(path).rows
  assert row["metrics"] == {"accuracy": None, "loss": None, "count": 3, "parts": [1.0, 1.0]}
  assert row["curve"] == [[1, 0.5]]


@pytest.mark.parametrize(
  ("row", "told"),
  [
    ({"task": "recall"}, "lacks attention, seed, status"),
    (_failed(status="skipped"), "'skipped' is not one of done, refused, failed"),
    (_done(primary="bits_per_byte"), "'bits_per_byte'; they have accuracy"),
    (_failed(status="done"), "lacks metrics, primary, higher_is_better"),
  ],
)
def test_row_that_could_not_stand_in_a_table_is_refused_and_nothing_is_written(tmp_path, row, told):
  with pytest.raises(ValueError, match=told):
    records.append(tmp_path / "results.jsonl", row)
  assert not (tmp_path / "results.jsonl").exists()


def test_lines_that_are_json_but_no_rows_are_reported(tmp_path):
  path = tmp_path / "results.jsonl"
  path.write_text("3\n" + json.dumps(_done()) + '\n{"task": "recall"}\n\n')
  held = records.read(path)
  assert len(held.rows) == 1
  assert held.damaged == [1, 3]


def test_run_counted_twice_counts_once_and_the_first_wins():
  rows = [_done(metrics={"accuracy": 0.1}), _done(metrics={"accuracy": 0.2}), _done(seed=1)]
  assert records.distinct(rows) == [rows[0], rows[2]]


def test_other_code_data_or_configuration_is_another_run():
  rows = [_done(), _done(commit="b"), _done(digests={"train": "x"}), _done(config_digest="d")]
  assert records.distinct(rows) == rows
  assert len({records.group(row) for row in rows}) == 4


@pytest.mark.parametrize("failure", [_failed(), _failed(config_digest="c", commit="z")])
def test_success_erases_failures_of_its_cell_before_and_after_it(failure):
  assert records.distinct([failure, _done(), failure]) == [_done()]


def test_failure_of_another_configuration_or_seed_stays():
  rows = [_failed(config_digest="d"), _failed(seed=1), _done()]
  assert records.distinct(rows) == rows


def test_last_of_several_failures_stays():
  assert records.distinct([_failed(reason="first"), _failed(reason="second")]) == [_failed(reason="second")]


def test_config_digest_ignores_the_cell_and_nothing_else():
  config = {"config.seed": 0, "config.model.attention": "softmax", "config.steps": 100}
  same = {"config.steps": 100, "config.seed": 7, "config.model.attention": "linear"}
  assert records.config_digest(config) == records.config_digest(same)
  assert records.config_digest(config) != records.config_digest({**config, "config.steps": 101})
