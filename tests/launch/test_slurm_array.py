"""The SLURM template, with an `sbatch` that runs its jobs at once, as a cluster of one."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
SCRIPT = ROOT / "launch" / "slurm_array.sh"
SBATCH = """#!/usr/bin/env python3
import os, subprocess, sys
flags = [word for word in sys.argv[1:] if word.startswith(("--parsable", "--array", "--dependency"))]
command = sys.argv[1 + len(flags):]
array = next((word.split("=1-")[1] for word in flags if word.startswith("--array")), "")
for task in range(1, int(array) + 1) if array else [""]:
  numbers = {"SLURM_JOB_ID": "7"} | ({"SLURM_ARRAY_TASK_ID": str(task)} if array else {})
  subprocess.run(command, env=os.environ | numbers, check=True, stdout=sys.stderr)
print("7;cluster")
"""


def launch(folder, *arguments):
  (folder / "bin").mkdir()
  (folder / "bin" / "sbatch").write_text(SBATCH)
  (folder / "bin" / "sbatch").chmod(0o755)
  paths = [str(folder / "bin"), str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
  paths = {"PATH": ":".join(paths), "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  command = ["bash", str(SCRIPT), *arguments]
  return subprocess.run(command, cwd=folder, env=os.environ | paths, capture_output=True, text=True, check=False)


@pytest.mark.long
def test_an_array_runs_each_cell_and_the_job_behind_it_writes_the_report(tmp_path):
  sizes = ("model.width=8", "model.layers=1", "batch=8", "data.train=64", "data.validation=8", "data.test=8")
  flags = ["--task=recall", "--attention=softmax;pooling", "--seeds=2", "--steps=3", "--workdir=out"]
  result = launch(tmp_path, *flags, *(f"--config.{word}" for word in sizes))
  assert result.returncode == 0, result.stderr
  assert "1 recall · softmax\n2 recall · pooling\narray job 7; the report comes from job 7" in result.stdout
  rows = [json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()]
  assert [(row["attention"], row["seed"], row["status"]) for row in rows] == [
    *(("softmax", 0, "done"), ("softmax", 1, "done"), ("pooling", 0, "done"), ("pooling", 1, "done")),
  ]
  assert (tmp_path / "out" / "report.html").exists()
  assert not list((tmp_path / "out").glob("journal.*.jsonl"))


def test_without_flags_it_says_how_it_is_used(tmp_path):
  result = launch(tmp_path)
  assert result.returncode == 2
  assert "usage: launch/slurm_array.sh FLAG" in result.stderr
