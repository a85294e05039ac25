"""Runs binaries in processes that are forked from one that has imported the libraries: 0.2 s each in place of 5 s.

A forked process has its flags, its JAX (no backend has started before the fork) and its streams to itself, so what it
prints and how it ends are what a user meets.
"""

import hashlib
import multiprocessing.reduction
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from attention_lab import huge_pages

LIBRARIES = (  # what the first process imports
  "attention_lab.compare.run",
  "attention_lab.tasks.question_answering",
  "attention_lab.train.restored",
  "orbax.checkpoint",
  "sklearn.linear_model",
  "tensorflow_datasets.core.read_only_builder",
)
PATIENCE = 300  # seconds, after which a program that has not ended is killed
ROOT = Path(__file__).parent.parent.parent
os.environ.setdefault("JAX_PLATFORMS", "cpu")  # the first process takes the environment over
_FORKS = multiprocessing.get_context("forkserver")


def run(
  binary: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] = {}
) -> subprocess.CompletedProcess:
  """The finished `python -m experiments.BINARY ARGUMENTS` in a folder, with what it printed."""
  _FORKS.set_forkserver_preload(list(LIBRARIES))
  settings = {"PYTHONPATH": f"{ROOT}:{folder}", "GLIBC_TUNABLES": huge_pages.TUNABLES, **environment}
  with tempfile.TemporaryFile("w+") as stdout, tempfile.TemporaryFile("w+") as stderr:
    streams = [multiprocessing.reduction.DupFd(stream.fileno()) for stream in (stdout, stderr)]
    process = _FORKS.Process(target=_main, args=(binary, arguments, folder, settings, streams))
    process.start()
    process.join(PATIENCE)
    process.kill()
    process.join()
    printed = []
    for stream in (stdout, stderr):
      stream.seek(0)
      printed.append(stream.read())
  return subprocess.CompletedProcess([binary, *arguments], process.exitcode, *printed)


def check_refused(binary: str, arguments: Sequence[str], message: str, folder: Path, code: int = 2) -> None:
  """Asserts that a program ends with a code and one line that holds a message, and leaves its folder as it was."""
  before = _contents(folder)
  done = run(binary, arguments, folder)
  assert done.returncode == code, done.stdout[-1000:] + done.stderr[-2000:]
  assert message in done.stderr
  assert done.stderr.count("\n") == 1, done.stderr
  assert done.stderr.startswith("error: ")
  assert _contents(folder) == before


def _contents(folder: Path) -> dict[Path, str]:
  """The digest of every file but locks, "" for folders."""
  paths = [path for path in sorted(folder.rglob("*")) if not path.name.startswith(".lock")]
  return {path: hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in paths}


def _main(binary: str, arguments: Sequence[str], folder: Path, settings: Mapping[str, str], streams: Sequence) -> None:
  for number, stream in enumerate(streams, 1):
    os.dup2(stream.detach(), number)
  os.chdir(folder)
  os.environ.update(settings)
  sys.path.insert(0, str(folder))
  sys.argv[:] = [binary, *arguments]
  runpy.run_module(f"experiments.{binary}", run_name="__main__", alter_sys=True)
