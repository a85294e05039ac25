import json
import subprocess
import sys

import pytest

from attention_lab import config as configs
from attention_lab.train import workdir as workdirs


def test_fields_that_change_nothing_of_what_is_trained_may_differ(config, tmp_path):
  workdirs.claim(tmp_path, "tiny", config(), (0,))
  changed = config(mesh__fsdp=2, checkpoint__every=5, checkpoint__minutes=1.0, checkpoint__keep=1, evaluate_every=3)
  assert workdirs.claim(tmp_path, "tiny", changed, (0,)) == tmp_path
  assert json.loads((tmp_path / "config.json").read_text())["config"]["mesh"]["fsdp"] == 2


def test_what_decides_which_parameters_are_tested_may_not_differ(config, tmp_path):
  workdirs.claim(tmp_path, "tiny", config(checkpoint__select="best", evaluate_every=2), (0,))
  for changes in ({"evaluate_every": 4, "checkpoint__select": "best"}, {"evaluate_every": 2}):
    with pytest.raises(
      ValueError, match=r"config\.(evaluate_every is 2 there and 4|checkpoint\.select is \"best\" there)"
    ):
      workdirs.check(tmp_path, "tiny", config(**changes), (0,))


@pytest.mark.parametrize(
  "experiment, changes, seeds, message",
  [
    ("other", {}, (0,), 'experiment is "tiny" there and "other" here'),
    ("tiny", {"steps": 9}, (0,), "config.steps is 8 there and 9 here"),
    ("tiny", {"model__attention": "linear"}, (0,), 'config.model.attention is "softmax" there and "linear" here'),
    ("tiny", {}, (0, 1), "seeds is absent there and [0, 1] here"),
  ],
)
def test_a_folder_of_another_run_is_refused_with_what_differs(experiment, changes, seeds, message, config, tmp_path):
  workdirs.claim(tmp_path, "tiny", config(), (0,))
  with pytest.raises(ValueError, match="holds another run: ") as error:
    workdirs.check(tmp_path, experiment, config(**changes), seeds)
  assert message in str(error.value)
  assert str(error.value).count(" there and ") == 1


def test_an_old_spelling_of_a_variant_is_the_same_run(config, tmp_path):
  workdirs.claim(tmp_path, "tiny", config(model__attention="pooled|softmax"), (0,))
  workdirs.check(tmp_path, "tiny", config(model__attention="memory_compressed|softmax"), (0,))
  workdirs.check(tmp_path, "tiny", config(model__attention="pooled|softmax"), (0,))


def test_a_warm_up_of_0_in_a_folder_of_before_is_the_automatic_one_and_in_a_new_one_none(config, tmp_path):
  record = {"experiment": "tiny", "config": json.loads(configs.to_json(config(optimizer__warmup=0)))}
  (tmp_path / "config.json").write_text(json.dumps(record))
  workdirs.check(tmp_path, "tiny", config(optimizer__warmup=-1), (0,))
  with pytest.raises(ValueError, match=r"config\.optimizer\.warmup is -1 there and 0 here"):
    workdirs.check(tmp_path, "tiny", config(optimizer__warmup=0), (0,))
  workdirs.claim(tmp_path / "new", "tiny", config(optimizer__warmup=0), (0,))
  assert workdirs.read(tmp_path / "new")["config"]["optimizer"]["warmup"] == 0
  workdirs.check(tmp_path / "new", "tiny", config(optimizer__warmup=0), (0,))


def test_a_folder_that_cannot_be_a_run_is_refused(config, tmp_path):
  (tmp_path / "file").touch()
  with pytest.raises(ValueError, match="is a file; give a folder"):
    workdirs.check(tmp_path / "file", "tiny", config(), (0,))
  (tmp_path / "checkpoints").mkdir()
  with pytest.raises(ValueError, match=r"holds a run without its config\.json"):
    workdirs.check(tmp_path, "tiny", config(), (0,))
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(ValueError, match=r"config\.json is not JSON"):
    workdirs.read(tmp_path)
  with pytest.raises(ValueError, match=r"has no config\.json: it is not the folder of a run"):
    workdirs.read(tmp_path / "nowhere")
  workdirs.check(tmp_path / "nowhere", "tiny", config(), (0,))
  assert not (tmp_path / "nowhere").exists()


def test_a_folder_has_one_process_which_may_share_it_with_others_that_work_on_parts(tmp_path):
  folder = tmp_path / "run"
  code = (
    "import sys; from attention_lab.train import workdir\n"
    f"with workdir.locked({str(folder)!r}, part='cell_1'): print('held', flush=True); sys.stdin.read()"
  )
  with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
    assert holder.stdout.readline() == b"held\n"
    for part in ("", "cell_1"):
      with (
        pytest.raises(ValueError, match=f"run is in use by process {holder.pid} on .*: wait for its end"),
        workdirs.locked(folder, part),
      ):
        pass
    with workdirs.locked(folder, "cell_2"):
      (folder / "file").write_text("")
    holder.kill()
  with workdirs.locked(folder), pytest.raises(ValueError, match="is in use"), workdirs.locked(folder, "cell_2"):
    pass


def test_a_folder_in_which_nothing_was_written_is_removed_again(tmp_path):
  with workdirs.locked(tmp_path / "new" / "run"):
    assert (tmp_path / "new" / "run").is_dir()
  with workdirs.locked(""):
    pass
  assert not list(tmp_path.iterdir())
