import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import pytest

from attention_lab import mesh as meshes
from attention_lab.compare.execute import worker_pool
from attention_lab.config import MeshConfig

PROGRAM = """
import os, time
from attention_lab.worker_processes import WorkerProcesses

def work():
  print(os.getpid(), flush=True)
  time.sleep(600)

if __name__ == "__main__":
  WorkerProcesses(1).submit(work)
  time.sleep(600)
"""


def alive(pid):
  """Whether the process runs: one that ended and that nobody has waited for does not."""
  try:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except FileNotFoundError:
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_does_not_outlive_a_parent_that_was_killed(tmp_path):
  (tmp_path / "parent.py").write_text(PROGRAM)
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)}
  with subprocess.Popen(
    [sys.executable, tmp_path / "parent.py"], stdout=subprocess.PIPE, text=True, env=environment
  ) as parent:
    worker = int(parent.stdout.readline())
    assert alive(worker)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    ended = time.monotonic() + 60
    while alive(worker) and time.monotonic() < ended:
      time.sleep(0.05)
  assert not alive(worker)


@pytest.mark.parametrize(("cores", "expected"), [({0}, 1), ({0, 1}, 2), (set(range(16)), 2)])
def test_two_cores_of_a_cpu_have_two_workers(monkeypatch, cores, expected):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
  assert worker_pool.default_workers(meshes.make_mesh(MeshConfig(), jax.devices()[:1])) == expected


def test_one_of_several_processes_has_one_worker(monkeypatch):
  monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
  monkeypatch.setattr(worker_pool.jax, "process_count", lambda: 2)
  assert worker_pool.default_workers(meshes.make_mesh(MeshConfig(), jax.devices()[:1])) == 1
