"""How much memory a program may take here."""

import pathlib

import jax

MEMINFO = pathlib.Path("/proc/meminfo")
GROUP = pathlib.Path("/sys/fs/cgroup")


def available() -> int | None:
  """Bytes that are free now on the device that programs run on; None where nobody says."""
  device = jax.devices()[0]
  if device.platform != "cpu":
    stats = device.memory_stats() or {}
    return stats["bytes_limit"] - stats["bytes_in_use"] if "bytes_limit" in stats else None
  if not MEMINFO.exists():
    return None
  lines = dict(line.split(":", 1) for line in MEMINFO.read_text().splitlines())
  free = int(lines["MemAvailable"].split()[0]) << 10
  limit, used = ((GROUP / name) for name in ("memory.max", "memory.current"))
  if limit.exists() and limit.read_text().strip().isdigit():
    free = min(free, int(limit.read_text()) - int(used.read_text()))
  return free


def problem(needs: int | None, limit: int | None) -> str:
  """Why a program that takes `needs` bytes is not run; empty if it fits or if one of the two is not known."""
  if needs is None or limit is None or needs <= limit:
    return ""
  return f"needs {needs / 2**30:.2f} GiB, and {max(limit, 0) / 2**30:.2f} GiB may be used"
