"""Runs binaries as a user does."""

import os
import subprocess
import sys

import binary_process
import pytest


@pytest.fixture
def start(tmp_path):
  """`start("recall", "--config.steps=1")`: the process, begun in an empty folder; it does not outlive the test."""
  begun = []

  def call(binary, *arguments, **environment):
    command = [sys.executable, "-m", f"experiments.{binary}", *arguments]
    env = {**os.environ, "PYTHONPATH": f"{binary_process.ROOT}:{tmp_path}", **environment}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    begun.append(subprocess.Popen(command, cwd=tmp_path, env=env, **pipes))
    return begun[-1]

  yield call
  for process in begun:
    process.kill()
    process.communicate()


@pytest.fixture
def run(tmp_path):
  """`run("recall", "--config.steps=1")`: the finished program, run in an empty folder."""
  return lambda binary, *arguments, **environment: binary_process.run(binary, arguments, tmp_path, environment)
