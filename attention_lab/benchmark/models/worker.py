"""A process for one program, so that allocators, pools of threads and other libraries do not meet; and its handle.

The process gets its workload as an argument, builds and warms it up, and says so. Then it answers each line of its
standard input, a word, with one line of JSON: `run` with the seconds of one run, `usage` with what it has used. It ends
with its input. Neither jax nor numpy is imported before the allocator is set.
"""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from attention_lab import compile_cache, huge_pages, interrupts

MODULE = "attention_lab.benchmark.models.worker"
WARM = 2  # runs of the warm-up, before the first that counts
SHORT = 0.05  # seconds of a run before which another one is not timed: caches and threads are then its own
BEGUN = "ATTENTION_LAB_WORKER_BEGUN"  # environment variable: time.time() when the process was asked for

Answer = dict[str, Any]


class Died(RuntimeError):
  """The error of a worker that ended without an answer; the message is the last line of its log."""


class Worker:
  """The handle of a process, used in a `with`."""

  def __init__(self, workload: str, log: pathlib.Path) -> None:
    self._log = log
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ | {BEGUN: repr(time.time())}
    with log.open("ab") as errors, interrupts.shielded():
      self._start = errors.tell()
      self._process = subprocess.Popen(
        [sys.executable, "-m", MODULE, workload],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
      )
    assert self._process.stdin is not None
    assert self._process.stdout is not None
    self._requests, self._answers = self._process.stdin, self._process.stdout

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *_: Any) -> None:
    """Ends the process, by force if it does not end with its input."""
    with contextlib.suppress(BrokenPipeError):
      self._requests.close()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._answers.close()

  def read(self) -> Answer:
    """The next answer; Died if there is none."""
    line = self._answers.readline()
    if not line.endswith("\n"):
      raise Died(self._last_line())
    return json.loads(line)

  def ask(self, word: str) -> Answer:
    """The answer to `word`; Died if there is none."""
    try:
      self._requests.write(f"{word}\n")
      self._requests.flush()
    except BrokenPipeError:
      raise Died(self._last_line()) from None
    return self.read()

  def _last_line(self) -> str:
    code = self._process.wait()
    with self._log.open("rb") as log:
      log.seek(self._start)
      lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return f"the process ended with code {code}: {lines[-1].strip()[:300] if lines else 'it said nothing'}"


def main(arguments: list[str]) -> int:
  send = _channel()
  workload = json.loads(arguments[0])
  try:
    _prepare(workload)
    run, fields = _build(arguments[0])
  except Exception as error:
    traceback.print_exc()
    send(_problem(error))
    return 1
  send({"status": "done", "reason": "", **fields})
  for answer in _answers(sys.stdin, run):
    send(answer)
  return 0


def _prepare(workload: dict[str, Any]) -> None:
  """Sets the allocator and the compile cache, which must come before jax."""
  if workload["huge_pages"]:
    huge_pages.enable()
  if workload["cache"]:
    compile_cache.enable(workload["cache"])


def _build(text: str) -> tuple[Callable[[int], Answer], dict[str, Any]]:
  """The function that runs batch i, and the row's fields that are known now, those of the first run among them."""
  from attention_lab.benchmark.models.workload import from_json

  workload = from_json(text)
  if workload.program.startswith("hf_"):
    from attention_lab.benchmark.models import hugging_face

    program = hugging_face.build(workload)
  else:
    from attention_lab.benchmark.models import lab_programs

    if workload.model == "start":
      return lambda _: {}, lab_programs.start(workload, float(os.environ[BEGUN]))
    program = lab_programs.build(workload)
  runs = [program.run(number) for number in range(WARM)]
  first = {"first_seconds": runs[0]["seconds"]} | {k: v for k, v in runs[0].items() if k in ("loss", "tokens")}
  return _leading(program.run, runs[-1]["seconds"] < SHORT), program.fields | {"first": first}


def _leading(run: Callable[[int], Answer], lead: bool) -> Callable[[int], Answer]:
  """The function that runs batch i after the warm-up, with another run before each that is short."""

  def run_measured(number: int) -> Answer:
    if lead:
      run(number)
    return {name: value for name, value in run(number).items() if name != "tokens"}

  return run_measured


def _answers(requests: Any, run: Callable[[int], Answer]) -> Iterator[Answer]:
  number = WARM
  for word in requests:
    if word.strip() == "run":
      yield run(number)
      number += 1
    else:
      yield _usage()


def _usage() -> Answer:
  """Seconds of processors and the largest resident memory in bytes, of this process so far."""
  import resource

  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
  return {"cpu": time.process_time(), "resident": peak if sys.platform == "darwin" else peak << 10}


def _problem(error: Exception) -> Answer:
  """The status and reason of an error: refused by a variant or by the allocator, else failed."""
  from attention_lab.attention.base import Unsupported

  reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
  if isinstance(error, Unsupported) or reason.startswith("--huge_pages"):
    return {"status": "refused", "reason": reason}
  return {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}


def _channel() -> Callable[[Answer], None]:
  """A function that writes answers to standard output, which from now on is standard error to libraries that print."""
  channel = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  def send(answer: Answer) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()

  return send


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
