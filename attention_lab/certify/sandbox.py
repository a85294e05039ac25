"""Where a mutant runs: a module under a name of its own, and a bound on the time it may take."""

import contextlib
import importlib
import itertools
import signal
import sys
import threading
import types
from collections.abc import Iterator
from typing import Any

from attention_lab.certify.mutation_operators import REACHED

_COUNTER = itertools.count()


@contextlib.contextmanager
def imported(source: str, name: str) -> Iterator[types.ModuleType]:
  """The changed text of the module `name` as a module of its own, known to `sys.modules` inside the block."""
  origin = importlib.import_module(name)
  module = types.ModuleType(f"{name}__mutant{next(_COUNTER)}")

  def reached(value: Any) -> Any:
    reached.called = True
    return value

  reached.called = False
  vars(module).update({"__file__": origin.__file__, "__package__": origin.__package__, REACHED: reached})
  sys.modules[module.__name__] = module
  try:
    exec(compile(source, str(origin.__file__), "exec"), vars(module))
    yield module
  finally:
    del sys.modules[module.__name__]


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
  """Raises TimeoutError in a loop of Python's that takes more of the processor's time, where signals can be had."""
  if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGPROF"):
    yield
    return

  def stop(*_: Any) -> None:
    raise TimeoutError

  signal.signal(signal.SIGPROF, stop)
  signal.setitimer(signal.ITIMER_PROF, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one that is still on its way must not end the process
