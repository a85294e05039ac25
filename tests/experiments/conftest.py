"""Runs binaries as a user does."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def run(tmp_path):
  """`run("recall", "--config.steps=1")`: the finished process, in an empty folder."""

  def call(binary, *words, **environment):
    command = [sys.executable, "-m", f"experiments.{binary}", *words]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{tmp_path}", **environment}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=env)

  return call
