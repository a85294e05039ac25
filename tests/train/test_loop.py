import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import MeshConfig
from attention_lab.data import pipeline
from attention_lab.train import checkpoint, loop, optimizer
from attention_lab.train import state as states
from attention_lab.train.step import Diverged

SILENT = lambda line: None


class Killed(BaseException):
  pass


class Counted:
  """A split that counts how many examples were read."""

  def __init__(self, split, fail=False):
    self.split, self.fail, self.read = split, fail, 0

  def __len__(self):
    return len(self.split)

  def __getitem__(self, indices):
    if self.fail:
      raise ValueError("record 7 of /data/file cannot be read")
    self.read += len(indices)
    return self.split[indices]


def with_split(task, name, split):
  source = dataclasses.replace(task.source, splits={**task.source.splits, name: split})
  return dataclasses.replace(task, source=source)


def saved(task, config, folder, mesh):
  """The state in the newest checkpoint, on the host."""
  target = states.abstract_state(task, optimizer.make_optimizer(config.optimizer, config.steps), (config.seed,), mesh)
  with checkpoint.Checkpoints(folder, config.checkpoint, read_only=True) as checkpoints:
    step, state, _ = checkpoints.restore(target)
  assert step == config.steps
  return jax.device_get(state)


@pytest.fixture(scope="module")
def straight(tiny, config, one_device, tmp_path_factory):
  """(task, config, folder, results, lines) of a run that was never stopped."""
  folder, lines = tmp_path_factory.mktemp("straight"), []
  asked = config(checkpoint__every=3, evaluate_every=2)
  results = loop.run(tiny(), asked, folder, mesh=one_device, log=lines.append)
  return tiny(), asked, folder, results, lines


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not_bit_for_bit(
  straight, one_device, tmp_path, monkeypatch
):
  task, config, folder, results, _ = straight
  write, lines = loop.MetricsWriter.write, []

  def killed_at_8(self, step, split, metrics):
    if step == 8:
      raise Killed
    write(self, step, split, metrics)

  monkeypatch.setattr(loop.MetricsWriter, "write", killed_at_8)
  with pytest.raises(Killed):
    loop.run(task, config, tmp_path, mesh=one_device, log=SILENT)
  assert '"step": 7' in (tmp_path / "metrics.jsonl").read_text()
  monkeypatch.undo()
  again = loop.run(task, config, tmp_path, mesh=one_device, log=lines.append)
  assert lines[0] == f"restored step 6 of 8 from {tmp_path}"
  assert (tmp_path / "metrics.jsonl").read_text() == (folder / "metrics.jsonl").read_text()
  jax.tree.map(np.testing.assert_array_equal, *(saved(task, config, path, one_device) for path in (tmp_path, folder)))
  for name in ("metrics", "curve", "parameters", "flops_per_token", "skipped", "seed"):
    assert again[0][name] == results[0][name]


def test_a_run_says_what_it_is_and_leaves_what_it_found(straight):
  task, _, folder, (result,), lines = straight
  phrases = ["1 cpu device", "parameters", "FLOPs per token", "24 tokens per step", "compiled in", "s; one program"]
  assert lines[0] == "compiling the training step …"
  assert all(phrase in lines[1] for phrase in phrases)
  assert len(lines) <= 20
  record = json.loads((folder / "config.json").read_text())
  assert (record["experiment"], record["config"]["batch"], "seeds" in record) == ("tiny", 8, False)
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 9))
  assert [row["step"] for row in rows if row["split"] == "validation"] == [2, 4, 6, 8]
  assert [[row["step"], row["accuracy"]] for row in rows if row["split"] == "validation"] == result["curve"]
  assert rows[-1] == {"step": 8, "split": "test", **result["metrics"]["test"]}
  assert list((folder / "tensorboard").iterdir())
  assert {path.name for path in (folder / "checkpoints").iterdir()} == {"6", "8"}
  assert result["parameters"] == optimizer.count(jax.eval_shape(task.model.init, jax.random.key(0)))
  assert result["step_time"] > 0
  assert result["peak_bytes"] > 8 * result["parameters"]


def test_a_finished_run_is_read_and_evaluates_again_where_its_results_were_deleted(straight, one_device):
  task, config, folder, results, _ = straight
  lines = []
  assert loop.run(task, config, folder, mesh=one_device, log=lines.append) == json.loads(json.dumps(results))
  assert lines == [
    f"this run has finished: its results are read from {folder / 'final.json'} (delete it to evaluate again)"
  ]
  (folder / "final.json").unlink()
  before = (folder / "metrics.jsonl").read_text()
  again = loop.run(task, config, folder, mesh=one_device, log=SILENT)
  assert (again[0]["metrics"], again[0]["curve"]) == (results[0]["metrics"], results[0]["curve"])
  assert (folder / "metrics.jsonl").read_text() == before


def test_the_test_split_is_read_once_and_a_run_without_a_folder_writes_nothing(tiny, config, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  test = Counted(tiny().source.splits["test"])
  mesh = meshes.make_mesh(MeshConfig(2, 1, 2))
  asked = config(steps=3, evaluate_every=1, checkpoint__every=1)
  (result,) = loop.run(with_split(tiny(), "test", test), asked, None, mesh=mesh, log=SILENT)
  assert test.read == 16
  assert [step for step, _ in result["curve"]] == [1, 2, 3]
  assert not list(tmp_path.iterdir())


def test_seeds_of_one_program_have_a_row_each_and_the_results_of_single_runs(straight, one_device, tmp_path):
  task, config, _, (single,), _ = straight
  config = dataclasses.replace(config, checkpoint=dataclasses.replace(config.checkpoint, every=0, keep=0))
  results = loop.run(task, config, tmp_path, mesh=one_device, seeds=(4, 0), log=SILENT)
  assert [result["seed"] for result in results] == [4, 0]
  assert results[1]["metrics"]["test"] == pytest.approx(single["metrics"]["test"], rel=1e-5)
  assert results[1]["curve"] == single["curve"]
  assert results[1]["flops_per_token"] == pytest.approx(single["flops_per_token"], rel=1e-2)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
  assert [row["seed"] for row in rows if row["split"] == "test"] == [4, 0]
  assert json.loads((tmp_path / "config.json").read_text())["seeds"] == [4, 0]
  assert not (tmp_path / "checkpoints").exists()


def test_another_configuration_is_refused_with_the_fields_and_nothing_is_written(straight, config, one_device):
  task, _, folder, _, _ = straight
  before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
  with pytest.raises(ValueError, match="holds another run") as error:
    loop.run(task, config(checkpoint__every=3, evaluate_every=2, model__width=128, batch=16), folder, mesh=one_device)
  assert "config.model.width is 64 there and 128 here" in str(error.value)
  assert "config.batch is 8 there and 16 here" in str(error.value)
  assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before


def test_steps_that_are_not_finite_are_counted_and_five_in_a_row_stop_the_run(tiny, config, one_device, tmp_path):
  task = tiny(poisoned=[5])
  stream = pipeline.train_batches(task.source.splits["train"], 8, 0)
  poisoned = sum(bool(np.isnan(next(stream)["factor"]).any()) for _ in range(8))
  (result,) = loop.run(task, config(), None, mesh=one_device, log=SILENT)
  assert result["skipped"] == poisoned > 0
  assert all(np.isfinite(value) for value in result["metrics"]["test"].values())
  message = r"at step 5: .* 5 steps in a row, no loss was finite; no checkpoint was made; lower --config"
  with pytest.raises(Diverged, match=message) as error:
    loop.run(tiny(poisoned=range(52)), config(checkpoint__every=7), tmp_path, mesh=one_device, log=SILENT)
  assert error.value.exit_code == 3
  assert not (tmp_path / "final.json").exists()
  assert not list((tmp_path / "checkpoints").iterdir())


def test_checkpoints_come_by_time_beside_those_by_steps(tiny, config, one_device, tmp_path, monkeypatch):
  clock = itertools.count(0.0, 25.0)  # seconds: a step asks once, and once more where it saves
  monkeypatch.setattr(checkpoint.time, "monotonic", lambda: next(clock))
  schedule = checkpoint.SaveSchedule(config(steps=20, checkpoint__minutes=1.0, checkpoint__every=8))
  assert [step for step in range(1, 21) if schedule.due(step)] == [3, 6, 8, 11, 14, 16, 19, 20]
  monkeypatch.undo()
  loop.run(tiny(), config(checkpoint__minutes=1e-9, checkpoint__keep=100), tmp_path, mesh=one_device, log=SILENT)
  assert len(list((tmp_path / "checkpoints").iterdir())) == config().steps


def test_an_error_of_the_data_stops_the_run_with_its_own_words(tiny, config, one_device):
  broken = Counted(tiny().source.splits["train"], fail=True)
  with pytest.raises(ValueError, match="record 7 of /data/file cannot be read"):
    loop.run(with_split(tiny(), "train", broken), config(), None, mesh=one_device, log=SILENT)
