"""Ctrl-C: one line that says what is left and how to go on, exit code 130, and never a traceback.

The main thread is unwound by KeyboardInterrupt, so that files are closed. Python raises it between two instructions
only, hence not while a compiler runs, and a library may swallow it: a thread of its own watches that the end comes, and
else ends the process. A second Ctrl-C does so at once.

It imports little, for it is the first module that a binary loads.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

EXIT_CODE = 130  # that shells give a program which Ctrl-C has ended
BEGIN, END = 1.5, 20.0  # seconds in which the main thread begins to unwind, and ends
RETRY = 0.05  # seconds after which an interrupt that was lost comes again


class _Watch:
  """The state of this process."""

  explain: Callable[[], str] = staticmethod(lambda: "the same command begins again")
  catching = False  # whether `caught` surrounds what the main thread does
  unwinding = threading.Event()


def watch() -> None:
  """Begins to watch for Ctrl-C, in the main thread; twice is once, and where it is ignored it stays so."""
  if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
    return
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  signal.signal(signal.SIGINT, _interrupt)
  sys.unraisablehook = _raise_later
  signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
  threading.Thread(target=_end_in_time, args=(reader,), daemon=True).start()


def explain(explanation: Callable[[], str]) -> None:
  """Takes the function that says, when Ctrl-C has come, what is kept and how to go on."""
  _Watch.explain = staticmethod(explanation)


@contextlib.contextmanager
def caught() -> Iterator[None]:
  """Ends the process where an error leaves the block after Ctrl-C."""
  watch()
  _Watch.catching = True
  try:
    yield
  except BaseException:
    if _Watch.unwinding.is_set():  # whatever it was turned into on its way
      _finish()
    raise


def unwinding() -> bool:
  """Whether Ctrl-C has come, and an error may be of its making."""
  return _Watch.unwinding.is_set()


@contextlib.contextmanager
def shielded() -> Iterator[None]:
  """Blocks Ctrl-C for the processes that are begun in the block, and for those alone."""
  before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _interrupt(*_: Any) -> None:
  _Watch.unwinding.set()
  if not _Watch.catching:
    _finish()
  raise KeyboardInterrupt


def _raise_later(unraisable: Any) -> None:
  """Raises KeyboardInterrupt once more where it came in a callback of Python's, which cannot pass an error on."""
  if issubclass(unraisable.exc_type, KeyboardInterrupt):
    threading.Timer(RETRY, _raise_in_main_thread).start()
  else:
    sys.__unraisablehook__(unraisable)


def _raise_in_main_thread() -> None:
  thread = ctypes.c_ulong(threading.main_thread().ident or 0)
  ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(KeyboardInterrupt))


def _end_in_time(reader: int) -> None:
  """Waits for Ctrl-C, then for the end of the process, and ends it where that does not come or a second one does."""
  _interrupted(reader, None)
  if not _interrupted(reader, BEGIN) and _Watch.unwinding.is_set():
    _interrupted(reader, END)
  _finish()


def _interrupted(reader: int, seconds: float | None) -> bool:
  """Whether Ctrl-C comes within `seconds`; None waits for it."""
  while select.select([reader], [], [], seconds)[0]:
    if os.read(reader, 1) == bytes([signal.SIGINT]):
      return True
  return False


def _finish() -> None:
  """Prints the line and ends the process at once: a thread that compiles would crash in the interpreter's own end."""
  with contextlib.suppress(Exception):
    erased = "\r\033[K" if sys.stderr.isatty() else ""
    os.write(sys.stderr.fileno(), f"{erased}stopped by Ctrl-C: {_Watch.explain()}\n".encode())
  if threading.current_thread() is threading.main_thread():
    with contextlib.suppress(Exception):
      sys.stdout.flush()
  os._exit(EXIT_CODE)
