"""The machine under a benchmark: its cores, those that others keep busy, and the memory that a program may take."""

import os
import pathlib
import time

STAT = pathlib.Path("/proc/stat")
MEMINFO = pathlib.Path("/proc/meminfo")
CGROUP = pathlib.Path("/sys/fs/cgroup")
QUIET = 0.1  # cores kept busy by others, above which a report warns


def cores() -> int:
  """The number of cores that this process may use."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Meter:
  """A meter of the cores that other processes keep busy, from its making on."""

  def __init__(self) -> None:
    self._begun = time.monotonic(), _busy(), _process_seconds()

  def read(self) -> float | None:
    """The cores that other processes used, on average; None where the system does not say (elsewhere than on Linux)."""
    begun, busy, used = self._begun
    now = _busy()
    if busy is None or now is None:
      return None
    return max(0.0, (now - busy - (_process_seconds() - used)) / max(time.monotonic() - begun, 1e-9))


def _busy() -> float | None:
  """The core-seconds that all processes have used."""
  if not STAT.exists():
    return None
  user, nice, system, _idle, _wait, *interrupts = map(int, STAT.read_text().splitlines()[0].split()[1:9])
  return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def _process_seconds() -> float:
  """The core-seconds that this process has used."""
  times = os.times()
  return times.user + times.system


def free_memory() -> int | None:
  """The bytes that are free now on the device that programs run on; None where the system does not say."""
  import jax  # processes of other libraries read cores and load alone

  device = jax.devices()[0]
  if device.platform != "cpu":
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
  if not MEMINFO.exists():
    return None
  lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
  free = int(lines["MemAvailable"].split()[0]) << 10
  limit, used = ((CGROUP / name) for name in ("memory.max", "memory.current"))
  if limit.exists() and limit.read_text().strip().isdigit():
    free = min(free, int(limit.read_text()) - int(used.read_text()))
  return free


def memory_problem(needs: int | None, limit: int | None) -> str:
  """The reason not to run a program of `needs` bytes; empty if it fits or if one of the two is not known."""
  if needs is None or limit is None or needs <= limit:
    return ""
  return f"needs {needs / 2**30:.2f} GiB, and {max(limit, 0) / 2**30:.2f} GiB may be used"
