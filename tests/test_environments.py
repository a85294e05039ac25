"""The units pass with the oldest versions of the dependencies that pyproject.toml allows, and with the newest."""

import os
import pathlib
import re
import subprocess
import sys
import tomllib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
TOOLS = ("mypy", "ruff")  # no test imports them


def requirements(pick):
  project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
  bounds = [*project["dependencies"], *project["optional-dependencies"]["test"]]
  return [pick(bound) for bound in bounds if not bound.startswith(TOOLS)]


def oldest(bound):
  name, version = re.match(r"([\w-]+)\s*>=\s*([\d.]+)", bound).groups()
  return f"{name}=={version}"


def test_every_dependency_has_a_lowest_version():
  assert all(re.fullmatch(r"[\w-]+==[\d.]+", bound) for bound in requirements(oldest))


@pytest.mark.long
@pytest.mark.parametrize("pick", [oldest, str], ids=["oldest", "newest"])
def test_the_units_pass_with_versions_at_the_ends_of_the_bounds(pick, tmp_path):
  subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True)
  python = str(tmp_path / "venv" / "bin" / "python")
  (tmp_path / "requirements.txt").write_text("\n".join(requirements(pick)))
  subprocess.run([python, "-m", "pip", "install", "-q", "-r", str(tmp_path / "requirements.txt")], check=True)
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  command = [python, "-m", "pytest", "-q", "-m", "unit", "-n", "2", "-p", "no:cacheprovider"]
  result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=env)
  assert result.returncode == 0, result.stdout[-3000:]
