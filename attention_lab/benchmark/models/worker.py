"""A process for one program, so that allocators, pools of threads and other libraries do not meet; and its handle.

The process gets its job as an argument, builds and warms it up, and says so. Then it answers each line of its standard
input, a word, with one line of JSON: `run` with the seconds of one run, `usage` with what it has used. It ends with its
input. Neither jax nor numpy is imported before the allocator is set.
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

from attention_lab import compile_cache, huge_pages

MODULE = "attention_lab.benchmark.models.worker"
WARM = 2  # runs before the first that counts
SHORT = 0.05  # seconds of a run before which another one is not timed: caches and threads are then its own
BEGUN = "ATTENTION_LAB_WORKER_BEGUN"  # environment variable: time.time() when the process was asked for

Answer = dict[str, Any]


class Died(RuntimeError):
  """A worker ended without an answer; the message is the last line of its log."""


class Worker:
  """The handle of a process, used in a `with`; `answer` is what it said when it was ready, or why it is not."""

  def __init__(self, job: str, log: pathlib.Path):
    self._log = log
    environment = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} | os.environ | {BEGUN: repr(time.time())}
    with log.open("ab") as errors:
      self._start = errors.tell()
      self._process = subprocess.Popen(
        [sys.executable, "-m", MODULE, job],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
        env=environment,
      )

  def __enter__(self) -> "Worker":
    return self

  def __exit__(self, *_: Any) -> None:
    """Ends the process, by force if it does not end with its input."""
    with contextlib.suppress(BrokenPipeError):
      self._process.stdin.close()
    try:
      self._process.wait(10)
    except subprocess.TimeoutExpired:
      self._process.kill()
      self._process.wait()
    self._process.stdout.close()

  def read(self) -> Answer:
    """The next answer; Died if there is none."""
    line = self._process.stdout.readline()
    if not line.endswith("\n"):
      raise Died(self._last_line())
    return json.loads(line)

  def ask(self, word: str) -> Answer:
    """The answer to `word`; Died if there is none."""
    try:
      self._process.stdin.write(f"{word}\n")
      self._process.stdin.flush()
    except BrokenPipeError:
      raise Died(self._last_line()) from None
    return self.read()

  def _last_line(self) -> str:
    code = self._process.wait()
    with self._log.open("rb") as log:
      log.seek(self._start)
      lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return f"the process ended with code {code}: {lines[-1].strip()[:300] if lines else 'it said nothing'}"


def main(words: list[str]) -> int:
  say = _channel()
  asked = json.loads(words[0])
  try:
    _prepare(asked)
    run, facts = _build(words[0])
  except Exception as error:
    traceback.print_exc()
    say(_problem(error))
    return 1
  say({"status": "done", "reason": "", **facts})
  for answer in _answers(sys.stdin, run):
    say(answer)
  return 0


def _prepare(asked: dict[str, Any]) -> None:
  """What must come before jax."""
  if asked["huge_pages"]:
    huge_pages.enable()
  if asked["cache"]:
    compile_cache.enable(asked["cache"])


def _build(text: str) -> tuple[Callable[[int], Answer], dict[str, Any]]:
  """The function that runs batch i, and the facts of the program, those of its first run among them."""
  from attention_lab.benchmark.models import job as jobs

  job = jobs.from_json(text)
  if job.program.startswith("hf_"):
    from attention_lab.benchmark.models import hugging_face

    subject = hugging_face.build(job)
  else:
    from attention_lab.benchmark.models import ours

    if job.model == "start":
      return lambda _: {}, ours.start(job, float(os.environ[BEGUN]))
    subject = ours.build(job)
  runs = [subject.run(number) for number in range(WARM)]
  first = {"first_seconds": runs[0]["seconds"]} | {k: v for k, v in runs[0].items() if k in ("loss", "tokens")}
  return _leading(subject.run, runs[-1]["seconds"] < SHORT), subject.facts | {"first": first}


def _leading(run: Callable[[int], Answer], lead: bool) -> Callable[[int], Answer]:
  """Runs after the warm-up, with another one before each that is short."""

  def one(number: int) -> Answer:
    if lead:
      run(number)
    return {name: value for name, value in run(number).items() if name != "tokens"}

  return one


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
  """What is refused, by a variant or by the allocator, and what failed."""
  from attention_lab.attention.base import Unsupported

  reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
  if isinstance(error, Unsupported) or reason.startswith("--huge_pages"):
    return {"status": "refused", "reason": reason}
  return {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}


def _channel() -> Callable[[Answer], None]:
  """Writes to what was standard output, which from now on is standard error: libraries print."""
  own = os.fdopen(os.dup(1), "w")
  os.dup2(2, 1)

  def say(answer: Answer) -> None:
    own.write(json.dumps(answer) + "\n")
    own.flush()

  return say


if __name__ == "__main__":
  sys.exit(main(sys.argv[1:]))
