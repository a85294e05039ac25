"""The cache of compiled programs: what was compiled once is read from the user's cache folder by later runs.

JAX does the keeping; here it is decided where, and said whether it served. A key holds the program, the versions, the
compiler's flags and the kind of device, so that nothing stale is read. JAX's own environment variables go first:
`JAX_ENABLE_COMPILATION_CACHE=0` switches the cache off, `JAX_COMPILATION_CACHE_DIR` names its folder.
"""

import contextlib
import dataclasses
import importlib.util
import os
import pathlib
import sys
import tempfile
from collections.abc import Iterator

OFF = "off"  # value of --compile_cache
SETTINGS = {  # options of JAX; each yields to an environment variable of the same name in capitals
  "jax_persistent_cache_min_compile_time_secs": 1.0,  # seconds that a program takes to compile, to be kept
  "jax_compilation_cache_max_size": 2**32,  # bytes; then the programs that were not read for longest go
}
# Events of JAX that are counted.
_REQUEST, _HIT = "/jax/compilation_cache/compile_requests_use_cache", "/jax/compilation_cache/cache_hits"


@dataclasses.dataclass
class Traffic:
  """The numbers of programs that were asked of the cache, and that it had."""

  requests: int = 0
  hits: int = 0


def enable(path: str = "") -> pathlib.Path | None:
  """Keeps compiled programs in a folder, in this process and in those that it starts.

  To be called before JAX compiles; does not import JAX. A folder that cannot be written costs a warning of one line.

  Args:
    path: "" = that of JAX's variable, or else the user's cache folder; "off" = keep none.

  Returns:
    The folder; None where nothing is kept.
  """
  off = path == OFF or (not path and os.environ.get("JAX_ENABLE_COMPILATION_CACHE", "1").lower() in ("0", "false"))
  folder = None if off else pathlib.Path(path or os.environ.get("JAX_COMPILATION_CACHE_DIR") or _home()).absolute()
  problem = _problem(folder) if folder else None
  if problem:
    print(f"warning: --compile_cache={folder}: {problem}; programs are compiled anew", file=sys.stderr)
    folder = None
  _set("jax_enable_compilation_cache", folder is not None)
  if folder:
    _set("jax_compilation_cache_dir", str(folder))
    for name, value in SETTINGS.items():
      if name.upper() not in os.environ and (name != "jax_compilation_cache_max_size" or _has_locks()):
        _set(name, value)
  return folder


@contextlib.contextmanager
def watched() -> Iterator[Traffic]:
  """Counts the requests to the cache within the block."""
  import jax

  traffic = Traffic()

  def listen(event: str, **_: object) -> None:
    traffic.requests += event == _REQUEST
    traffic.hits += event == _HIT

  jax.monitoring.register_event_listener(listen)
  try:
    yield traffic
  finally:
    jax.monitoring.unregister_event_listener(listen)


def _home() -> pathlib.Path:
  caches = os.environ.get("XDG_CACHE_HOME") or pathlib.Path("~/.cache").expanduser()
  return pathlib.Path(caches) / "attention_lab" / "xla"


def _problem(folder: pathlib.Path) -> str | None:
  """The reason why nothing can be written to the folder, which is made if it is not there; None if it can."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
      return None
  except OSError as error:
    return error.strerror


def _has_locks() -> bool:
  """Whether JAX can bound the folder's size: it needs a package for that."""
  return importlib.util.find_spec("filelock") is not None


def _set(name: str, value: object) -> None:
  """Sets an option of JAX, whether it was imported already or not."""
  os.environ[name.upper()] = str(value)
  if "jax" in sys.modules:
    sys.modules["jax"].config.update(name, value)
