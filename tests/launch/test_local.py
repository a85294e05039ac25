"""`launch/local.sh` runs one command on several processes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


def local(*arguments, folder=ROOT):
  path = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
  env = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  command = ["bash", str(ROOT / "launch" / "local.sh"), *arguments]
  return subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder, env=env)


@pytest.mark.parametrize("arguments", [(), ("2",), ("0", "true"), ("two", "true")])
def test_wrong_usage_is_one_line(arguments):
  result = local(*arguments)
  assert result.returncode == 2
  assert result.stderr.count("\n") == 1


def test_a_failure_of_any_process_is_a_failure():
  assert local("2", "false").returncode != 0


@pytest.mark.long
def test_two_processes_train_one_model(tmp_path):
  flags = ["--config.steps=6", "--config.data.train=64", "--config.model.width=16", "--config.batch=8"]
  result = local("2", "python", "-m", "experiments.recall", *flags, "--workdir=run", folder=tmp_path)
  assert result.returncode == 0, result.stderr
  assert "2 cpu devices" in result.stdout
  rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
  assert max(row["step"] for row in rows) == 6
