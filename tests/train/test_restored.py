"""A workdir that was written before variants and parameters got their present names opens as it is."""

import pathlib
import tarfile

import chex
import pytest

from attention_lab.train import optimizer, restored
from attention_lab.train import state as states
from attention_lab.train.checkpoint import Checkpoints
from attention_lab.train.evaluation import Evaluator

ARCHIVE = pathlib.Path(__file__).parent / "workdir_with_old_names.tar.gz"  # 3 steps of recall, on one CPU
ATTENTION = "forgetting|shared+fixed(stride=3, expressivity=1)"  # its spec, in the spelling of then
METRICS = {"validation": (0.0245, 3.9825), "test": (0.0178, 3.9810)}  # accuracy and loss that evaluate printed then


@pytest.fixture
def workdir(tmp_path):
  with tarfile.open(ARCHIVE) as archive:
    archive.extractall(tmp_path, filter="data")
  return tmp_path


def test_its_evaluation_gives_the_numbers_of_then(workdir):
  run = restored.restore(workdir, overrides=["--config.mesh.data=1"])
  assert (run.config.model.attention, run.steps) == (ATTENTION, (3,))
  evaluator = Evaluator(run.task, run.mesh, run.config.batch, run.seeds)
  for split, numbers in METRICS.items():
    (result,) = evaluator.judge(run.params, split)
    assert (round(result.metrics["accuracy"], 4), round(result.metrics["loss"], 4)) == numbers


def test_its_training_goes_on_with_its_parameters_and_optimizer(workdir):
  run = restored.restore(workdir, overrides=["--config.mesh.data=1"])
  shapes = states.abstract_state(
    run.task, optimizer.make_optimizer(run.config.optimizer, run.config.steps), run.seeds, run.mesh
  )
  with Checkpoints(workdir, run.config.checkpoint) as checkpoints:
    step, state, _ = checkpoints.restore(shapes, print)
  assert step == 3
  chex.assert_trees_all_equal(state.params, run.params)
  chex.assert_trees_all_equal_shapes_and_dtypes(state, shapes)
