"""How many cores others kept busy while rounds ran; a benchmark on a busy machine must say so."""

import os
import pathlib
import time

STAT = pathlib.Path("/proc/stat")
QUIET = 0.1  # cores; above it a report warns


def cores() -> int:
  """Cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Meter:
  """Counts from its making on."""

  def __init__(self):
    self._begun = time.monotonic(), _busy(), _own()

  def read(self) -> float | None:
    """Cores that other processes used, on average; None where the system does not say (elsewhere than on Linux)."""
    begun, busy, own = self._begun
    now = _busy()
    if busy is None or now is None:
      return None
    return max(0.0, (now - busy - (_own() - own)) / max(time.monotonic() - begun, 1e-9))


def _busy() -> float | None:
  """Core-seconds that all processes have used."""
  if not STAT.exists():
    return None
  user, nice, system, _idle, _wait, *interrupts = map(int, STAT.read_text().splitlines()[0].split()[1:9])
  return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _own() -> float:
  times = os.times()
  return times.user + times.system
