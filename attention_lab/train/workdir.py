"""A run's folder: `config.json` holds its experiment and configuration, `final.json` its results.

A folder belongs to one run: another configuration is refused with the fields that differ, but for those that change
nothing of what is trained and tested (evaluations choose what is tested under `config.checkpoint.select=best`).
"""

import contextlib
import fcntl
import json
import os
import pathlib
import platform
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from attention_lab import config as configs
from attention_lab.attention import spec

CONFIG, FINAL, LOCK = "config.json", "final.json", ".lock"
ATTENTION = "config.model.attention"
OTHERS = {"grid.jsonl": "a comparison", "rows.jsonl": "a benchmark"}  # files of other programs' folders
# Fields, or beginnings of their names, that change nothing of what is trained.
MAY_DIFFER = (
  *("config.mesh.", "config.checkpoint.every", "config.checkpoint.minutes", "config.checkpoint.keep"),
  "config.evaluate_every",
)


def check(workdir: str | os.PathLike[str], experiment: str, config: configs.Config, seeds: Sequence[int]) -> None:
  """Raises ValueError if the folder cannot be written, or holds another run: other experiment, seeds or configuration.

  Nothing is left in it.
  """
  folder = check_writable(workdir)
  others = [noun for name, noun in OTHERS.items() if (folder / name).exists()]
  if others:
    raise ValueError(f"--workdir={workdir} holds {others[0]}; give another folder")
  if not (folder / CONFIG).exists():
    if any((folder / name).exists() for name in ("checkpoints", FINAL)):
      raise ValueError(f"--workdir={workdir} holds a run without its {CONFIG}; give another folder")
    return
  here, there = _leaves(_record(experiment, config, seeds)), _leaves(read(folder))
  names = [name for name in here | there if here.get(name) != there.get(name) and not _may_differ(name, config)]
  if names:
    shown = [f"{name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here" for name in names]
    raise ValueError(f"--workdir={workdir} holds another run: {'; '.join(shown)}; give another folder")


def check_writable(workdir: str | os.PathLike[str]) -> pathlib.Path:
  """The folder of a run; ValueError where it is a file or cannot be made and written. Nothing is left in it."""
  folder = pathlib.Path(workdir)
  if folder.is_file():
    raise ValueError(f"--workdir={workdir} is a file; give a folder")
  nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
  try:
    with tempfile.TemporaryDirectory(dir=nearest):
      return folder
  except OSError as error:
    reason = "it is a file" if nearest.is_file() else error.strerror
    raise ValueError(f"--workdir={workdir} cannot be written ({nearest}: {reason}); give another folder") from None


def claim(
  workdir: str | os.PathLike[str], experiment: str, config: configs.Config, seeds: Sequence[int]
) -> pathlib.Path:
  """`check`, then makes the folder and writes its `config.json`."""
  check(workdir, experiment, config, seeds)
  folder = pathlib.Path(workdir)
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / CONFIG, json.dumps(_record(experiment, config, seeds), indent=2) + "\n")
  return folder


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str], part: str = "") -> Iterator[None]:
  """Holds the folder against other processes until the block or the process ends, however it ends.

  The lock is of the operating system. A file system without locks, as some network ones are, holds nobody off.

  Args:
    workdir: the folder, which is made; "" = none, and nothing is held.
    part: the name of a part that this process alone works on, beside others on other parts; "" = the whole.

  Raises:
    ValueError: another process holds the whole, or the same part.
  """
  if not workdir or jax.process_index():
    yield
    return
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={folder} is a file; give a folder")
  missing = [path for path in (folder, *folder.parents) if not path.exists()]
  folder.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    _lock(folder, LOCK, fcntl.LOCK_SH if part else fcntl.LOCK_EX, stack)
    if part:
      _lock(folder, f"{LOCK}.{part}", fcntl.LOCK_EX, stack)
    try:
      yield
    finally:
      _remove_unused(folder, missing)


def read(workdir: str | os.PathLike[str], flag: str = "--workdir") -> dict[str, Any]:
  """The record in `config.json`: experiment, config, and seeds if there are several; ValueError where there is none.

  flag: the flag that named the folder.
  """
  path = pathlib.Path(workdir) / CONFIG
  try:
    record = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    raise ValueError(f"{flag}={workdir} has no {CONFIG}: it is not the folder of a run") from None
  except ValueError as error:
    raise ValueError(f"{path} is not JSON ({error}); restore it or give another {flag}") from None
  if not isinstance(record, dict) or not isinstance(record.get("config"), dict) or "experiment" not in record:
    raise ValueError(f"{path} is not the record of a run; restore it or give another {flag}")
  return configs.upgraded(record)


def results(folder: pathlib.Path) -> list[dict[str, Any]] | None:
  """The results of a finished run, one dict a seed; None if it has not finished."""
  path = folder / FINAL
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not JSON ({error}); delete it to evaluate the checkpoint again") from None


def finish(folder: pathlib.Path, outcome: list[dict[str, Any]]) -> None:
  """Writes the results of all seeds to `final.json`, in process 0."""
  if jax.process_index() == 0:
    replace(folder / FINAL, json.dumps(outcome, indent=2) + "\n")


def replace(path: pathlib.Path, text: str) -> None:
  """Writes a file so that a reader sees the old text or the new, and never a part."""
  partial = path.with_name(f"{path.name}.partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)


def _lock(folder: pathlib.Path, name: str, kind: int, stack: contextlib.ExitStack) -> None:
  """Takes the lock of one file, or raises ValueError."""
  file = stack.enter_context((folder / name).open("a+", encoding="utf-8"))
  try:
    fcntl.flock(file, kind | fcntl.LOCK_NB)
  except BlockingIOError:
    file.seek(0)
    holder = file.read().strip() or "another process"
    raise ValueError(f"--workdir={folder} is in use by {holder}: wait for its end, or give another folder") from None
  except OSError:
    return
  file.truncate(0)
  file.write(f"process {os.getpid()} on {platform.node()}")
  file.flush()


def _remove_unused(folder: pathlib.Path, missing: Sequence[pathlib.Path]) -> None:
  """Removes the folders that were `missing` before, if nothing but locks was written: the run was refused."""
  files = list(folder.iterdir())
  if missing and all(path.name.startswith(LOCK) for path in files):
    with contextlib.suppress(OSError):
      for path in files:
        path.unlink()
      for path in missing:
        path.rmdir()


def _record(experiment: str, config: configs.Config, seeds: Sequence[int]) -> dict[str, Any]:
  record = {"schema": configs.SCHEMA, "experiment": experiment, "config": json.loads(configs.to_json(config))}
  return record | {"seeds": list(seeds)} if len(seeds) > 1 else record


def _may_differ(name: str, config: configs.Config) -> bool:
  chooses = name == "config.evaluate_every" and config.checkpoint.select == "best"
  return name.startswith(MAY_DIFFER) and not chooses


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
  return leaves | ({ATTENTION: spec.respelled(leaves[ATTENTION])} if ATTENTION in leaves else {})


def _shown(value: Any) -> str:
  return "absent" if value is None else json.dumps(value, ensure_ascii=False)
