import shutil

import jax
import numpy as np
import pytest

from attention_lab import mesh as meshes
from attention_lab.config import CheckpointConfig, MeshConfig
from attention_lab.train import checkpoint, optimizer
from attention_lab.train import state as states
from attention_lab.train.checkpoint import BrokenCheckpoint, Checkpoints
from attention_lab.train.step import Diverged

KEEP = CheckpointConfig(keep=3)
POSITIONS = [{"next_index": 5}]


@pytest.fixture(scope="module")
def rule(config):
  return optimizer.make_optimizer(config().optimizer, 8)


@pytest.fixture(scope="module")
def state(tiny, rule, one_device):
  return states.init_state(tiny(), rule, (0,), one_device)


@pytest.fixture
def target(tiny, rule, one_device):
  return states.abstract_state(tiny(), rule, (0,), one_device)


@pytest.fixture
def folder(state, tmp_path):
  with Checkpoints(tmp_path, KEEP) as checkpoints:
    for step in (1, 2, 3):
      checkpoints.save(step, state, POSITIONS)
  return tmp_path


def damage(folder, step, how):
  step_folder = folder / "checkpoints" / str(step)
  if how == "empty":
    shutil.rmtree(step_folder)
    step_folder.mkdir()
  if how == "metadata":
    (step_folder / "params" / "_METADATA").write_text('{"tree')
  if how == "manifest":
    for path in step_folder.rglob("manifest.ocdbt"):
      path.unlink()
  if how == "truncated":
    data = max(step_folder.rglob("d/*"), key=lambda path: path.stat().st_size)
    data.write_bytes(data.read_bytes()[:10])


@pytest.mark.parametrize("how", ["empty", "metadata", "manifest", "truncated"])
def test_a_damaged_newest_step_is_set_aside_for_the_one_before(how, folder, target, state):
  damage(folder, 3, how)
  lines = []
  with Checkpoints(folder, KEEP) as checkpoints:
    step, restored, positions = checkpoints.restore(target, lines.append)
    assert (step, positions, checkpoints.latest()) == (2, POSITIONS, 2)
    checkpoints.save(3, state, POSITIONS)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
  assert len(lines) == 1
  assert lines[0].startswith("checkpoint 3 cannot be restored and is set aside in broken_checkpoints/; 2 is taken")
  assert [path.name for path in (folder / "broken_checkpoints").iterdir()] == ["3.0"]


def test_parameters_under_the_name_of_before_are_restored_with_their_moments(state, target, tmp_path):
  older = checkpoint._renamed(state, {"params": "own"})
  assert "own" in older.params["attention"]
  with Checkpoints(tmp_path, KEEP) as checkpoints:
    checkpoints.save(1, older, POSITIONS)
  with Checkpoints(tmp_path, KEEP) as checkpoints:
    assert jax.tree.structure(checkpoints.shapes()) == jax.tree.structure(state.params)
    step, restored, positions = checkpoints.restore(target)
  assert (step, positions) == (1, POSITIONS)
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))


def test_where_all_steps_are_damaged_nothing_is_begun_or_moved(folder, target):
  for step in (1, 2, 3):
    damage(folder, step, "empty")
  with (
    Checkpoints(folder, KEEP) as checkpoints,
    pytest.raises(BrokenCheckpoint, match="can be restored; give another") as error,
  ):
    checkpoints.restore(target)
  assert (error.value.exit_code, "\n" in str(error.value)) == (4, False)
  assert {path.name for path in (folder / "checkpoints").iterdir()} == {"1", "2", "3"}


def test_a_reader_moves_nothing(folder, tiny, one_device):
  damage(folder, 3, "empty")
  lines = []
  with Checkpoints(folder, KEEP, read_only=True) as checkpoints:
    step, _ = checkpoints.restore_params(states.abstract_params(tiny(), (0,), one_device), lines.append)
  assert (step, len(lines)) == (2, 1)
  assert (folder / "checkpoints" / "3").exists()


def test_a_state_restores_on_another_number_of_devices(folder, tiny, rule, state):
  mesh = meshes.make_mesh(MeshConfig(2, 2, 2))
  with Checkpoints(folder, KEEP) as checkpoints:
    _, restored, _ = checkpoints.restore(states.abstract_state(tiny(), rule, (0,), mesh))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored), jax.device_get(state))
  kernel = restored.params["mlp"]["up"]["kernel"]
  assert kernel.sharding.spec == meshes.P("fsdp", "tensor")
  assert kernel.addressable_shards[0].data.shape == (4, 8)


def test_arrays_of_other_shapes_or_dtypes_are_refused_by_name(folder, target):
  params = jax.tree.map(lambda leaf: leaf, target.params)
  params["head"]["kernel"] = jax.ShapeDtypeStruct((8, 5), np.float32)
  params["norm"]["scale"] = jax.ShapeDtypeStruct((8,), np.float16)
  del params["attention"]["query"]["bias"]
  with Checkpoints(folder, KEEP) as checkpoints, pytest.raises(ValueError, match="checkpoint 3 of --workdir") as error:
    checkpoints.restore(target._replace(params=params))
  assert "attention/query/bias is float32[2, 4] there and absent here" in str(error.value)
  assert "head/kernel is float32[8, 4] there and float32[8, 5] here" in str(error.value)
  assert "norm/scale is float32[8] there and float16[8] here" in str(error.value)


def test_a_state_that_is_not_finite_is_not_saved(state, tmp_path):
  bad = jax.tree.map(lambda leaf: leaf, state)
  bad.params["norm"]["scale"] = bad.params["norm"]["scale"].at[0].set(np.inf)
  with Checkpoints(tmp_path, KEEP) as checkpoints:
    with pytest.raises(Diverged, match="state after step 4 is not finite"):
      checkpoints.save(4, bad, POSITIONS)
    assert checkpoints.latest() is None


def test_the_newest_are_kept_and_what_a_killed_save_left_is_cleaned(folder, state, target):
  leftover = folder / "checkpoints" / "9.orbax-checkpoint-tmp"
  leftover.mkdir()
  with Checkpoints(folder, CheckpointConfig(keep=2)) as checkpoints:
    assert checkpoints.restore(target)[0] == 3
    checkpoints.save(4, state, POSITIONS)
  assert {path.name for path in (folder / "checkpoints").iterdir()} == {"3", "4"}
  with Checkpoints(folder / "fresh", KEEP) as checkpoints:
    assert checkpoints.restore(target) is None
