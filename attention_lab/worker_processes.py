"""Pools of Python processes that leave Ctrl-C to their parent, and end with it, however it ends."""

import concurrent.futures
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable
from typing import Any

from attention_lab import interrupts

# Python's tracker of semaphores, a process of its own, frees those of a program that ended early, and would complain.
SILENCED = "ignore::UserWarning:multiprocessing.resource_tracker"
os.environ["PYTHONWARNINGS"] = ",".join(filter(None, (os.environ.get("PYTHONWARNINGS"), SILENCED)))


class WorkerProcesses(concurrent.futures.ProcessPoolExecutor):
  """A pool of new Python processes.

  Args:
    workers: how many.
    initializer: called with `arguments` in each process when it begins; None = nothing is.
    arguments: of the initializer.
  """

  def __init__(self, workers: int, initializer: Callable[..., None] | None = None, arguments: tuple[Any, ...] = ()):
    context = multiprocessing.get_context("spawn")
    super().__init__(workers, context, _begin_worker, (initializer, arguments))

  def submit(self, *args: Any, **kwargs: Any) -> concurrent.futures.Future:
    """As in the base; the first call begins the processes."""
    with interrupts.shielded():
      return super().submit(*args, **kwargs)

  def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
    interrupted = kind is not None and issubclass(kind, KeyboardInterrupt)
    for process in multiprocessing.active_children() if interrupted else ():
      process.kill()  # one that still imports does not yet watch its parent
    self.shutdown(wait=not interrupted, cancel_futures=True)


def _begin_worker(initializer: Callable[..., None] | None, arguments: tuple[Any, ...]) -> None:
  threading.Thread(target=_exit_with_parent, daemon=True).start()
  if initializer:
    initializer(*arguments)


def _exit_with_parent() -> None:
  """Ends this process with its parent: two pools must not write one run's checkpoints."""
  parent = multiprocessing.parent_process()
  if parent:
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)
