import dataclasses
import json
import math

import jax
import numpy as np
import pytest

from attention_lab.config import CheckpointConfig, Config
from attention_lab.tasks import base as tasks
from attention_lab.train import loop, restored
from attention_lab.train.checkpoint import BestParams, Checkpoints
from attention_lab.train.evaluation import Evaluator

SILENT = lambda line: None


class Killed(BaseException):
  pass


class Counted:
  def __init__(self, split):
    self.split, self.read = split, 0

  def __len__(self):
    return len(self.split)

  def __getitem__(self, indices):
    self.read += len(indices)
    return self.split[indices]


def shaky(config, **changes):
  """A learning rate at which a later step is often a worse one."""
  return config(
    steps=8, evaluate_every=1, checkpoint__select="best", checkpoint__every=3, optimizer__learning_rate=0.3, **changes
  )


@pytest.fixture(scope="module")
def straight(tiny, config, one_device, tmp_path_factory):
  """(task, config, folder, result, lines, examples of test that were read)."""
  folder, lines, task = tmp_path_factory.mktemp("best"), [], tiny()
  test = Counted(task.source.splits["test"])
  task = dataclasses.replace(task, source=dataclasses.replace(task.source, splits={**task.source.splits, "test": test}))
  (result,) = loop.run(task, shaky(config), folder, mesh=one_device, log=lines.append)
  return task, shaky(config), folder, result, lines, test.read


def peak(curve):
  """The first step of the highest value, and the value."""
  return max(curve, key=lambda point: (point[1], -point[0]))


def test_the_best_on_validation_is_what_is_tested_and_the_log_says_which(straight):
  _, _, folder, result, lines, _ = straight
  step, value = peak(result["curve"])
  assert step < 8
  assert result["selected"] == step
  assert result["metrics"]["validation"]["accuracy"] == pytest.approx(value)
  assert f"best validation accuracy {value:.4g} at step {step}: these parameters are tested" in lines
  rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [row["split"] for row in rows[-3:]] == ["validation", "best", "test"]
  assert [row["step"] for row in rows if row["split"] == "validation"] == list(range(1, 9))


def test_the_test_split_is_read_once_and_has_no_say_in_the_choice(straight):
  assert straight[-1] == 16  # 9 examples in batches of 8


def test_what_is_restored_is_what_was_tested(straight, one_device, monkeypatch):
  task, _, folder, result, _, _ = straight
  module = dataclasses.make_dataclass("Module", ["Config", "build"])(Config, lambda *_: task)
  monkeypatch.setattr(tasks, "load", lambda name: module)
  run = restored.restore(folder, overrides=["--config.mesh.data=1"])
  assert run.steps == (result["selected"],)
  for split in ("validation", "test"):
    (judged,) = Evaluator(task, one_device, 8).judge(run.params, split)
    assert judged.metrics == result["metrics"][split]


def test_the_choice_outlives_a_restart_behind_it(straight, one_device, tmp_path, monkeypatch):
  task, config, _, result, _, _ = straight
  write = loop.MetricsWriter.write

  def killed_at_8(self, step, split, metrics):
    if step == 8:
      raise Killed
    return write(self, step, split, metrics)

  monkeypatch.setattr(loop.MetricsWriter, "write", killed_at_8)
  with pytest.raises(Killed):
    loop.run(task, config, tmp_path, mesh=one_device, log=SILENT)
  monkeypatch.undo()
  (again,) = loop.run(task, config, tmp_path, mesh=one_device, log=SILENT)
  assert all(again[name] == result[name] for name in ("selected", "metrics", "curve"))


def test_each_seed_has_a_best_step_of_its_own_and_no_folder_is_needed(straight, tiny, one_device):
  _, config, _, single, _, _ = straight
  results = loop.run(tiny(), config, None, mesh=one_device, seeds=(4, 0, 9), log=SILENT)
  assert results[1]["selected"] == single["selected"]
  assert results[1]["metrics"]["test"] == pytest.approx(single["metrics"]["test"], rel=1e-4)
  for result in results:
    assert [result["selected"], result["metrics"]["validation"]["accuracy"]] == pytest.approx(peak(result["curve"]))
  assert len({result["selected"] for result in results}) > 1


def test_equal_values_stay_nan_is_worst_and_lower_may_be_better(one_device, tmp_path):
  sharding = jax.sharding.NamedSharding(one_device, jax.sharding.PartitionSpec())
  params = lambda *values: {"w": jax.device_put(np.array(values, np.float32)[:, None], sharding)}
  with Checkpoints(tmp_path, CheckpointConfig(), name="best") as saves:
    best = BestParams(False, (0, 1), saves)
    offers = [(math.nan, 3.0), (2.0, math.nan), (1.0, 3.0), (1.0, 2.5), (math.nan, 9.0)]
    for step, values in enumerate(offers, 1):
      best.offer(step, params(step, step), values)
    assert (best.steps, best.values) == ([3, 4], [1.0, 2.5])
    np.testing.assert_array_equal(best.params["w"], [[3], [4]])
  with Checkpoints(tmp_path, CheckpointConfig(), name="best") as saves:
    later = BestParams(False, (0, 1), saves)
    later.restore(params(0, 0), SILENT)
    later.offer(9, params(9, 9), (0.5, 2.5))
    assert (later.steps, later.values) == ([9, 4], [0.5, 2.5])
    np.testing.assert_array_equal(later.params["w"], [[9], [4]])
