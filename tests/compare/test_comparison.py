"""Whole comparisons with runs that are made up: what is run, when the test split is touched, what a restart changes."""

import itertools
import json
import random

import jax
import pytest

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab import threads
from attention_lab.attention import spec
from attention_lab.compare import report, run
from attention_lab.compare.execute import runner, verify
from attention_lab.compare.schedule import scheduler
from attention_lab.compare.schedule.protocol import Protocol
from attention_lab.results import records
from attention_lab.train import optimizer

TINY = [
  f"--config.{word}"
  for word in (
    "data.train=32",
    "data.validation=8",
    "data.test=8",
    "model.width=8",
    "model.layers=1",
    "batch=4",
    "mesh.data=1",
  )
]
ROWS = ("softmax", "linear", "pooling")
SCORES = {"softmax": 0.9, "fox": 0.8, "linear": 0.6, "pooling": 0.3}


class Runs:
  """In the place of `loop.run`: scores by variant, rate and seed; every call is kept, and call `dies_at` is a kill."""

  def __init__(self):
    self.calls, self.dies_at = [], 0

  def __call__(self, task, config, workdir, *, mesh, seeds=None, experiment="", log=print, splits=()):
    self.calls.append((config.model.attention, config.optimizer.learning_rate, tuple(seeds), tuple(splits)))
    if self.dies_at == len(self.calls):
      raise KeyboardInterrupt
    metrics = lambda seed, split: {"accuracy": self.score(config, seed) - 0.1 * (split == "test"), "loss": 1.0}
    size = {"parameters": optimizer.count(jax.eval_shape(task.model.init, jax.random.key(0)))}
    return [size | {"seed": seed, "metrics": {split: metrics(seed, split) for split in splits}} for seed in seeds]

  def score(self, config, seed):
    rate, attention = config.optimizer.learning_rate, spec.canonical(config.model.attention)
    noise = random.Random(f"{attention} {rate} {seed}").uniform(0, 0.01)
    return SCORES[attention] + noise + 0.2 * (attention == "linear" and rate > 3e-3)

  @property
  def tested(self):
    return [call[0] for call in self.calls if "test" in call[3]]


@pytest.fixture
def runs(monkeypatch):
  fake = Runs()
  monkeypatch.setattr(runner.loop, "run", fake)
  return fake


def compare(folder, specs=";".join(ROWS), task="recall", **kwargs):
  """Fields of the protocol, and options of `run.execute`."""
  fields = {name: kwargs.pop(name) for name in tuple(kwargs) if name in Protocol.__match_args__}
  comparison = run.plan(task, specs, 6, TINY, Protocol(**({"seeds": "3"} | fields)))
  mesh = meshes.make_mesh(configs.MeshConfig(data=1))
  return run.execute(comparison, folder, mesh, lambda line: None, **kwargs)


def rows(folder):
  """What the table is made of: rows without what differs from run to run by its nature."""
  lines = records.read(folder / "results.jsonl").rows
  distinct = records.distinct(lines)
  assert len(distinct) == sum(row["status"] != "failed" for row in lines) or any(
    row["status"] == "failed" for row in distinct
  )
  table = [{name: value for name, value in row.items() if name not in ("wall_time", "step_time")} for row in distinct]
  return sorted(table, key=lambda row: (row["task"], row["attention"], row["seed"]))


def test_losers_get_their_second_chance_and_the_test_split_is_touched_once_a_row(runs, tmp_path):
  assert compare(tmp_path) == 0
  assert sorted(runs.tested) == ["linear", "pooling", "softmax"]
  assert len(runs.calls) == 3 + 4 + 3
  last = max(index for index, call in enumerate(runs.calls) if "test" not in call[3])
  assert all("test" in call[3] for call in runs.calls[last + 1 :])
  taken = {row["attention"]: row["tuning"]["taken"] for row in rows(tmp_path)}
  assert taken == {"softmax": "", "linear": "×3", "pooling": taken["pooling"]}
  linear = next(row for row in rows(tmp_path) if row["attention"] == "linear")
  assert linear["config"]["config.optimizer.learning_rate"] == pytest.approx(9e-3)
  assert "--config.optimizer.learning_rate=0.009" in linear["command"]
  assert linear["metrics"]["accuracy"] == pytest.approx(linear["validation"]["accuracy"] - 0.1)
  assert set(linear["tuning"]["second"]) == {"÷3", "×3"}
  assert not (tmp_path / "runs").exists()


def test_without_second_chances_training_and_test_are_one_run(runs, tmp_path):
  compare(tmp_path, lr_retries=False)
  assert [call[3] for call in runs.calls] == [("validation", "test")] * 3
  assert {row["tuning"]["chances"] for row in rows(tmp_path)} == {False}


def test_trials_are_the_same_for_all_rows_and_judged_on_validation_alone(runs, tmp_path):
  compare(tmp_path, trials=3, lr_retries=False)
  trials = [call for call in runs.calls if call[2] == (1_000_000,)]
  rates = {name: [call[1] for call in trials if call[0] == name] for name in ROWS}
  assert len(set(map(tuple, rates.values()))) == 1
  assert len(set(rates["softmax"])) == 3
  assert {call[3] for call in trials} == {("validation",)}
  assert {row["tuning"]["trials"] for row in rows(tmp_path)} == {3}


@pytest.mark.parametrize("number", range(4))
def test_killing_and_restarting_at_random_changes_no_number(runs, tmp_path, number):
  compare(tmp_path / "whole", trials=2)
  calls, rng = len(runs.calls), random.Random(number)
  for _ in itertools.count():
    runs.calls, runs.dies_at = [], rng.randint(1, 6)
    try:
      compare(tmp_path / "pieces", trials=2)
      break
    except KeyboardInterrupt:
      journal_path = tmp_path / "pieces" / "journal.jsonl"
      if journal_path.exists() and rng.random() < 0.5:
        content = journal_path.read_bytes()
        lines = content.splitlines(keepends=True)
        journal_path.write_bytes(b"".join(lines[:-1]) + lines[-1][: rng.randint(0, 40)])
  for row, other in zip(rows(tmp_path / "pieces"), rows(tmp_path / "whole"), strict=True):
    assert {k: (v, other.get(k)) for k, v in row.items() if v != other.get(k)} == {}
  assert rows(tmp_path / "pieces") == rows(tmp_path / "whole")
  assert len(runs.calls) < calls


def test_a_users_variant_costs_only_its_own_runs(runs, tmp_path, monkeypatch):
  compare(tmp_path, "softmax;linear")
  before = (tmp_path / "results.jsonl").read_text()
  runs.calls = []
  compare(tmp_path, "pooling")
  assert {call[0] for call in runs.calls} == {"pooling"}
  assert (tmp_path / "results.jsonl").read_text().startswith(before)
  assert "pooling" in (tmp_path / "report.md").read_text()
  assert "linear" in (tmp_path / "report.md").read_text()
  runs.calls = []
  compare(tmp_path, "softmax;linear;pooling")
  assert runs.calls == []


def test_a_table_that_was_kept_without_its_journal_is_not_run_again(runs, tmp_path):
  for name in ("whole", "kept"):
    compare(tmp_path / name, "softmax;linear", trials=2)
  (tmp_path / "kept" / "journal.jsonl").unlink()
  runs.calls = []
  compare(tmp_path / "kept", "softmax;linear;pooling", trials=2)
  assert {call[0] for call in runs.calls} == {"pooling"}
  compare(tmp_path / "whole", "softmax;linear;pooling", trials=2)
  assert rows(tmp_path / "kept") == rows(tmp_path / "whole")


def respell(folder, present, old):
  """Makes a workdir one of before a variant got its present name."""
  for path in folder.glob("*.jsonl"):
    path.write_text(path.read_text().replace(present, old))


@pytest.mark.parametrize("specs", ["softmax;fox;linear", "softmax;forgetting;linear"])
def test_a_workdir_under_an_old_spelling_goes_on_and_its_lines_stay(runs, tmp_path, specs):
  compare(tmp_path, "softmax;fox", trials=2, match="parameters")
  respell(tmp_path, "fox", "forgetting")
  files = ("grid.jsonl", "journal.jsonl", "budgets.jsonl", "results.jsonl")
  before = {name: (tmp_path / name).read_text() for name in files}
  runs.calls = []
  compare(tmp_path, specs, trials=2, match="parameters")
  assert {call[0] for call in runs.calls} == {"linear"}
  assert all((tmp_path / name).read_text().startswith(text) for name, text in before.items())
  assert {row["attention"] for row in rows(tmp_path)} == {"softmax", "fox", "linear"}
  report = (tmp_path / "report.md").read_text()
  assert "`fox`" in report
  assert "`forgetting`" not in report


def test_a_run_that_was_killed_under_an_old_spelling_goes_on_in_its_folder(tmp_path):
  comparison = run.plan("recall", "fox|softmax", 6, TINY, Protocol(seeds="3"))
  jobs = runner.JobRunner(comparison, tmp_path, meshes.make_mesh(configs.MeshConfig(data=1)), print)
  held = jobs._workdir(scheduler.Job("recall", "forgetting|softmax", (0, 1, 2), {}))
  job = scheduler.Job("recall", "fox|softmax", (0, 1, 2), {})
  assert jobs._workdir(job) != held
  held.mkdir(parents=True)
  assert jobs._workdir(job) == held


def test_cells_that_are_run_alone_and_collected_give_the_same_rows(runs, tmp_path):
  compare(tmp_path / "whole", trials=2)
  for number in (3, 1):
    compare(tmp_path / "cells", trials=2, only=number)
  with pytest.raises(ValueError, match=r"--collect: these cells are not run: recall · linear"):
    compare(tmp_path / "cells", trials=2, collect=True)
  compare(tmp_path / "cells", trials=2, only=2)
  assert sorted(path.name for path in (tmp_path / "cells").glob("journal*")) == ["journal.2.jsonl", "journal.jsonl"]
  compare(tmp_path / "cells", trials=2, collect=True)
  assert rows(tmp_path / "cells") == rows(tmp_path / "whole")
  with pytest.raises(ValueError, match="--cell=4 is no cell"):
    compare(tmp_path / "cells", trials=2, only=4)


def test_auto_seeds_are_added_to_every_row(runs, tmp_path):
  compare(tmp_path, seeds="auto", half_width=0.003, most=8, lr_retries=False)
  counts = {name: [row["seed"] for row in rows(tmp_path) if row["attention"] == name] for name in ROWS}
  assert counts["softmax"] == counts["linear"] == counts["pooling"]
  assert 3 < len(counts["softmax"]) <= 8


def test_a_row_that_is_refused_is_kept_with_its_reason_and_runs_nothing(runs, tmp_path):
  assert compare(tmp_path, "softmax;fourier") == 0
  refused = [row for row in rows(tmp_path) if row["attention"] == "fourier"]
  assert {row["status"] for row in refused} == {"refused"}
  assert "not causal" in refused[0]["reason"]
  assert {call[0] for call in runs.calls} == {"softmax"}


def test_rules_are_part_of_the_grid_and_another_one_is_refused(runs, tmp_path):
  compare(tmp_path, trials=2)
  with pytest.raises(ValueError, match=r"compare\.trials=2 \(now 3\)"):
    compare(tmp_path, trials=3)


def test_budgets_are_matched_and_kept(runs, tmp_path):
  compare(tmp_path, "softmax;pooling", match="parameters", lr_retries=False)
  by_row = {row["attention"]: row["budget"] for row in rows(tmp_path)}
  assert set(by_row["pooling"]["changed"]) == {"mlp_width"}
  assert by_row["pooling"]["value"] == pytest.approx(by_row["softmax"]["target"], rel=0.01)
  saved = [json.loads(line) for line in (tmp_path / "budgets.jsonl").read_text().splitlines()]
  assert [line["attention"] for line in saved] == ["softmax", "pooling"]


def test_a_failed_run_is_a_row_and_is_run_again_by_the_next_session(runs, tmp_path, monkeypatch):
  broken = lambda *args, **kwargs: (_ for _ in ()).throw(OSError("no space"))
  monkeypatch.setattr(runner.loop, "run", broken)
  assert compare(tmp_path, "softmax") == 3
  assert {row["status"] for row in rows(tmp_path)} == {"failed"}
  monkeypatch.setattr(runner.loop, "run", runs)
  assert compare(tmp_path, "softmax") == 0
  assert {row["status"] for row in rows(tmp_path)} == {"done"}


def test_the_positive_control_must_be_a_row(runs, tmp_path):
  with pytest.raises(ValueError, match="--positive=local is no row"):
    compare(tmp_path, positive="local")
  compare(tmp_path, positive="softmax")
  assert {row["attention"] for row in rows(tmp_path) if row["positive"]} == {"softmax"}


def test_progress_counts_the_runs_of_all_tasks(runs, tmp_path):
  lines = []
  comparison = run.plan("recall,mechanisms:needle", "softmax;linear", 6, TINY, Protocol(seeds="1", lr_retries=False))
  run.execute(comparison, tmp_path, meshes.make_mesh(configs.MeshConfig(data=1)), lines.append)
  counts = [line.partition("]")[0] for line in lines if line.startswith("[")]
  assert counts == ["[1/4", "[2/4", "[3/4", "[4/4"]
  summary = report.summary(tmp_path).splitlines()
  assert summary[0].startswith("recall: accuracy on the test split")
  names = [line.split()[0] for line in summary[1 : summary.index("")]]
  assert [name for name in names if name in ("variant", *SCORES)] == ["variant", "softmax", "linear"]


def test_a_row_is_verified_by_running_it_again(tmp_path, monkeypatch):
  monkeypatch.setenv(threads.VARIABLE, "2")
  compare(tmp_path, "softmax", seeds="2", lr_retries=False)
  lines = []
  assert verify.row(tmp_path, "recall softmax 1", lines.append) == 0
  assert "holds" in lines[-1]
  path = tmp_path / "results.jsonl"
  path.write_text(path.read_text().replace('"metrics": {"accuracy": ', '"metrics": {"accuracy": 1'))
  assert verify.row(tmp_path, "recall softmax 1", lines.append) == 1
  assert "does not hold" in lines[-1]
  assert any(line.startswith("test accuracy: 1") for line in lines)
  with pytest.raises(ValueError, match="did you mean 'recall softmax 1'"):
    verify.row(tmp_path, "recall softmax 7", lines.append)


def test_a_row_of_another_processor_is_verified_within_the_spread_of_its_seeds(runs, tmp_path, monkeypatch):
  compare(tmp_path, "softmax", seeds="3", lr_retries=False)
  path, lines = tmp_path / "results.jsonl", []
  held = [json.loads(line) for line in path.read_text().splitlines()]
  again = lambda task, config, workdir, **kwargs: runs(task, config, workdir, **kwargs, seeds=(0,), splits=("test",))
  monkeypatch.setattr(verify.loop, "run", again)
  for shift, holds in ((0.001, True), (0.1, False)):
    for row in held:
      shifted = row["metrics"] | {"accuracy": row["metrics"]["accuracy"] + shift}
      records.append(path, row | {"metrics": shifted, "processor": f"another {shift}", "commit": f"of {shift}"})
    assert verify.row(tmp_path, "recall softmax 0", lines.append) == (0 if holds else 1)
    assert ("holds within the spread of its seeds" in lines[-1]) is holds
    assert any("another processor (another" in line and "accuracy 0.00" in line for line in lines)
  assert any(line.startswith("note: the number of the row's threads is not known") for line in lines)


def test_a_row_is_named_in_short_where_only_one_is_like_it(runs, tmp_path, monkeypatch):
  compare(tmp_path, "softmax@width=16;softmax@layers=2;linear@width=16", seeds="1", lr_retries=False)
  again = lambda task, config, workdir, **kwargs: runs(task, config, workdir, **kwargs, seeds=(0,), splits=("test",))
  monkeypatch.setattr(verify.loop, "run", again)
  assert verify.row(tmp_path, "recall linear 0", lambda line: None) == 0
  message = "may be any of 2 rows of .*: give one of recall softmax@width=16 0; recall softmax@layers=2 0"
  with pytest.raises(ValueError, match=message):
    verify.row(tmp_path, "recall softmax 0", lambda line: None)


def test_a_row_under_an_old_spelling_is_verified_by_either(runs, tmp_path, monkeypatch):
  compare(tmp_path, "fox", seeds="1", lr_retries=False)
  respell(tmp_path, "fox", "forgetting")
  again = lambda task, config, workdir, **kwargs: runs(
    task, config, workdir, **kwargs, seeds=(config.seed,), splits=("test",)
  )
  monkeypatch.setattr(verify.loop, "run", again)
  before, lines = (tmp_path / "results.jsonl").read_text(), []
  for name in ("forgetting", "fox"):
    assert verify.row(tmp_path, f"recall {name} 0", lines.append) == 0
  assert "recall fox 0: holds" in lines[-1]
  assert runs.calls[-1][0] == "forgetting"
  assert (tmp_path / "results.jsonl").read_text() == before
