"""The number of threads that share one CPU program: sums are split among them, so it decides a number's last digits.

XLA takes it from an environment variable when its client starts, or else from the cores that it may use. Once it is
set, results are the same bit for bit on free, busy or pinned cores of one kind of processor. It does not import jax.
"""

import os
import pathlib
import platform
from typing import Any

VARIABLE = "PJRT_NPROC"  # of the environment, which worker processes inherit
_CPUINFO = pathlib.Path("/proc/cpuinfo")


def use(count: int) -> None:
  """Sets the number of threads of this process, before JAX starts its client, and of those that it starts."""
  os.environ[VARIABLE] = str(count)


def cores() -> int:
  """The number of cores that this process may run on."""
  return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def record(kind: str) -> dict[str, Any]:
  """The fields of a row that say which threads of which processor made its numbers; none of other devices.

  Args:
    kind: of the device, "cpu", "gpu" or "tpu".
  """
  if kind != "cpu":
    return {}
  return {"threads": int(os.environ.get(VARIABLE) or os.environ.get("NPROC") or cores()), "processor": processor()}


def processor() -> str:
  """The model name of the processor, as Linux gives it; elsewhere the platform's name."""
  lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.exists() else []
  names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
  return names[0] if names else platform.processor() or platform.machine()
