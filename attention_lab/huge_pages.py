"""An allocator setting for XLA on a CPU: memory that stays, in huge pages. It imports neither jax nor numpy.

XLA takes its temporaries anew from malloc at every call; above 32 MiB glibc maps them afresh each time, and each page
of 4 KiB costs a fault of about 1 µs. Here glibc never maps, keeps one arena, never gives back, and the top of its heap
is advised to be huge pages. The price: the process holds the most memory that it ever used. It must come before the
first thread, hence before jax; a process that also runs torch becomes several times slower, hence not there.

`enable` sets a process that has not imported jax; `restart` begins one anew that has.
"""

import ctypes
import os
import pathlib
import platform
import sys

MAX_BYTES = 8 << 30  # of the heap that is advised to be huge pages
ALIGNMENT = 2 << 20  # bytes of a huge page
SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
MIN_GLIBC = (2, 35)  # version from which on an environment variable can ask for huge pages
TUNABLES = (  # value of the environment variable GLIBC_TUNABLES
  "glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.arena_max=1:glibc.malloc.trim_threshold=1099511627776"
)
# Options of mallopt, and the advice of madvise.
_ARENA_MAX, _MMAP_MAX, _TRIM_THRESHOLD, _HUGEPAGE = -8, -4, -1, 14


def enable() -> None:
  """Sets the allocator of this process, which must not have imported jax or torch.

  Raises:
    ValueError: it cannot be set, with the reason.
  """
  problem = _problem()
  if problem:
    raise ValueError(f"--huge_pages {problem}: leave it out")
  libc = ctypes.CDLL(None)
  libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
  libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
  libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
  size = min(MAX_BYTES, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2)
  libc.mallopt(_ARENA_MAX, 1)
  libc.mallopt(_MMAP_MAX, 0)
  block = libc.malloc(size)
  if not block:
    raise ValueError(f"--huge_pages needs {size >> 30} GiB of address space, and malloc refused: leave it out")
  start = -(-block // ALIGNMENT) * ALIGNMENT
  libc.madvise(start, (block + size - start) // ALIGNMENT * ALIGNMENT, _HUGEPAGE)
  libc.mallopt(_TRIM_THRESHOLD, -1)
  libc.free(block)


def restart(*, required: bool = True) -> None:
  """Puts this program in place of itself, with the allocator set by the environment; returns where it is set already.

  Nothing that the process has begun survives: call it first.

  Args:
    required: whether to refuse where it cannot be set; else nothing is done there.

  Raises:
    ValueError: it is required and cannot be set, with the reason.
  """
  before = os.environ.get("GLIBC_TUNABLES", "")
  if TUNABLES in before:
    return
  problem = _unfit()
  version = platform.libc_ver()[1]
  if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
    problem = "and --coordinator exclude each other"
  if not problem and tuple(map(int, version.split(".")[:2])) < MIN_GLIBC:
    problem = f"needs glibc {'.'.join(map(str, MIN_GLIBC))}, and this is {version}"
  if problem and required:
    raise ValueError(f"--huge_pages {problem}: leave it out")
  if problem:
    return
  os.environ["GLIBC_TUNABLES"] = f"{before}:{TUNABLES}" if before else TUNABLES
  sys.stdout.flush()
  os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _problem() -> str:
  """The reason why the setting cannot be made in this process; empty if it can."""
  started = [name for name in ("jax", "torch") if name in sys.modules]
  return _unfit() or (f"must be set before {started[0]} is imported, and it is already" if started else "")


def _unfit() -> str:
  """The reason why this machine has no such setting; empty if it has."""
  if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
    return f"needs Linux with glibc, and this is {platform.system()} {platform.libc_ver()[0]}".rstrip()
  if not SETTING.exists() or "[never]" in SETTING.read_text():
    return f"needs transparent huge pages, which are off here ({SETTING})"
  return ""
