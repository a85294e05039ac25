"""Runs binaries as a user does."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.fixture
def start(tmp_path):
  """`start("recall", "--config.steps=1")`: the process, begun in an empty folder; it does not outlive the test."""
  begun = []

  def call(binary, *arguments, **environment):
    command = [sys.executable, "-m", f"experiments.{binary}", *arguments]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": f"{ROOT}:{tmp_path}", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    begun.append(subprocess.Popen(command, cwd=tmp_path, env=env, **pipes))
    return begun[-1]

  yield call
  for process in begun:
    process.kill()
    process.communicate()


@pytest.fixture
def run(start):
  """`run("recall", "--config.steps=1")`: the finished process."""

  def call(binary, *arguments, **environment):
    process = start(binary, *arguments, **environment)
    stdout, stderr = process.communicate()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

  return call
