"""Ctrl-C ends a program in one line with exit code 130, whatever it does, and its worker processes with it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from attention_lab import interrupts

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = """
import gc, hashlib, os, time
from attention_lab import interrupts
from attention_lab.worker_processes import WorkerProcesses

interrupts.END = 0.5

def sleep():
  time.sleep(600)

def compute():  # as a compiler does: no instruction of Python, and others may run
  hashlib.pbkdf2_hmac("sha1", b"", b"", 10**9)

def swallow():
  try:
    time.sleep(600)
  except KeyboardInterrupt:
    compute()

def turn():
  try:
    time.sleep(600)
  except KeyboardInterrupt:
    raise ValueError("a library's error")

def collect():  # garbage, with a callback as JAX has one
  gc.callbacks.append(lambda *_: time.sleep(0.01))
  while True:
    gc.collect()

def share():
  with WorkerProcesses(1) as pool:
    print(pool.submit(os.getpid).result(), flush=True)
    pool.submit(sleep).result()

if __name__ == "__main__":
  interrupts.explain(lambda: "row 3 is kept")
  with interrupts.caught():
    print("begun", flush=True)
    {}()
"""


def stopped(path, doing, lines=1):
  """(exit code, error output, lines of output) of a program whose process group gets Ctrl-C after some lines."""
  signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
  path.write_text(PROGRAM.replace("{}", doing))
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
  environment = {**os.environ, "PYTHONPATH": str(ROOT)}
  with subprocess.Popen([sys.executable, str(path)], env=environment, **pipes) as process:
    output = [process.stdout.readline().strip() for _ in range(lines)]
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
  return process.returncode, errors, output


@pytest.mark.parametrize("doing", ["sleep", "compute", "swallow", "turn", "collect"])
def test_ctrl_c_is_one_line_that_says_what_is_kept(tmp_path, doing):
  code, errors, _ = stopped(tmp_path / "program.py", doing)
  assert (code, errors) == (interrupts.EXIT_CODE, "stopped by Ctrl-C: row 3 is kept\n")


def test_ctrl_c_reaches_no_worker_and_ends_them_with_their_parent(tmp_path):
  code, errors, (_, worker) = stopped(tmp_path / "program.py", "share", lines=2)
  assert (code, errors) == (interrupts.EXIT_CODE, "stopped by Ctrl-C: row 3 is kept\n")
  ended = time.monotonic() + 30
  while pathlib.Path(f"/proc/{worker}").exists() and time.monotonic() < ended:
    time.sleep(0.05)
  assert not pathlib.Path(f"/proc/{worker}").exists()


def test_ctrl_c_that_is_ignored_stays_ignored():
  before = signal.signal(signal.SIGINT, signal.SIG_IGN)
  try:
    interrupts.watch()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
  finally:
    signal.signal(signal.SIGINT, before)
