"""What single binaries print and write, and the list of all of them."""

import json
import pathlib
import subprocess
import sys

from attention_lab.workflows.architectures import ARCHITECTURES
from experiments.__main__ import binaries

ROOT = pathlib.Path(__file__).parent.parent.parent


def test_the_list_of_binaries_has_a_line_for_each_and_starts_no_jax():
  code = "import sys; from experiments.__main__ import main; main(); assert 'jax' not in sys.modules"
  done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
  lines = [line.split(maxsplit=1) for line in done.stdout.splitlines()[2:]]
  files = {path.stem for path in (ROOT / "experiments").glob("*.py") if not path.stem.startswith("_")}
  assert {name for name, _ in lines} == files
  assert all(line[0].isupper() and line[-1] in ".:" for _, line in lines)


def test_everything_in_the_folder_of_binaries_is_one():
  for name in binaries():
    assert 'if __name__ == "__main__":\n  cli.run(main' in (ROOT / "experiments" / f"{name}.py").read_text(), name


def test_an_argument_that_the_list_does_not_take_is_refused_in_one_line():
  command = [sys.executable, "-m", "experiments", "recall"]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
  assert (done.returncode, done.stderr.count("\n")) == (2, 1)
  assert "python -m experiments.NAME" in done.stderr


def test_the_binary_writes_the_table_and_runs_no_cell_twice(run, tmp_path):
  flags = ["--workdir=out", "--attention=cope(positions=3)", "--workers=1"]
  for message in ("1 of 1 variants\n2 ran, 8 refused, 0 failed: ", "2 ran, 8 refused, 0 failed: "):
    result = run("matrix", *flags)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(message)
    rows = [json.loads(line) for line in (tmp_path / "out" / "matrix.jsonl").read_text().splitlines()]
    assert [row["architecture"] for row in rows] == list(ARCHITECTURES)
  assert "| `cope(positions=3)` | ✓ | no prefix mask |" in (tmp_path / "out" / "matrix.md").read_text()


def test_the_data_are_reported_without_training(run, tmp_path):
  arguments = ["--config.data.train=64", "--config.data.validation=8", "--config.data.test=8", "--workdir=w"]
  done = run("recall", "--data_report", *arguments)
  assert (done.returncode, done.stderr) == (0, "")
  assert "Lengths" in done.stdout
  assert not (tmp_path / "w").exists()
  both = run("recall", "--data_report", "--cross_validate")
  assert (both.returncode, both.stderr.count("\n")) == (2, 1)
  assert "give one of them" in both.stderr


def test_the_help_lists_the_flags_that_binaries_share(run):
  shown = run("recall", "--help").stdout
  assert all(f"--{name}=" in shown for name in ("data_report", "cross_validate", "workdir"))
