"""The grid of a comparison, cells of task, attention and seeds that `grid.jsonl` holds, and the execution of a cell.

One record of the file is one run: {schema, task, attention, seed, settings}. Variants, seeds and tasks may be added to
a grid; the settings of a task never change within a workdir, because rows of different budgets must not meet in one
table.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import time
import traceback
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from attention_lab import config as configs
from attention_lab.attention import base, spec
from attention_lab.results import records

FILE = "grid.jsonl"
Stamp = Callable[["Cell", int], Mapping[str, Any]]  # (cell, seed) -> fields of a row that do not depend on its result


@dataclasses.dataclass(frozen=True)
class Cell:
  """One row on one task, with the seeds that train together; `settings` is flat, by the name of the flag."""

  task: str
  attention: str
  seeds: tuple[int, ...]
  settings: Mapping[str, Any]

  def __str__(self) -> str:
    """The cell as a log shows it."""
    seeds = ", ".join(map(str, self.seeds))
    return f"{self.task} · {self.attention} · seed{'s' * (len(self.seeds) > 1)} {seeds}"


def plan(tasks: Mapping[str, Mapping[str, Any]], specs: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
  """A cell for every spec on every task (settings by name), with all seeds; ValueError for none or a double choice."""
  for name, choice in (("task", list(tasks)), ("attention", specs), ("seeds", seeds)):
    if not choice:
      raise ValueError(f"--{name} is empty: a comparison needs at least one")
    twice = sorted({str(item) for item in choice if list(choice).count(item) > 1})
    if twice:
      raise ValueError(f"--{name} names {', '.join(twice)} twice: name each once")
  return [Cell(task, text, tuple(seeds), dict(settings)) for task, settings in tasks.items() for text in specs]


def register(workdir: str | os.PathLike[str], cells: Sequence[Cell]) -> pathlib.Path:
  """Adds the cells to the workdir's grid; ValueError names the settings that differ from those it holds."""
  path = pathlib.Path(workdir) / FILE
  held, lines = read(workdir), path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
  before = {cell.task: cell.settings for cell in held}
  for cell in cells:
    if cell.task in before and _normal(cell.settings) != before[cell.task]:
      raise ValueError(_disagreement(path, cell, before[cell.task]))
  runs = {(cell.task, cell.attention, seed) for cell in held for seed in cell.seeds}
  lines += dict.fromkeys(line for cell in cells for line in _lines(cell, runs))
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_suffix(f".{os.getpid()}")
  partial.write_text("".join(lines), encoding="utf-8")
  partial.replace(path)
  return path


def read(workdir: str | os.PathLike[str]) -> list[Cell]:
  """The cells of a workdir's grid in the order in which they were added; none when it has no grid."""
  path = pathlib.Path(workdir) / FILE
  if not path.exists():
    return []
  seeds: dict[tuple[str, str], list[int]] = {}
  settings = {}
  for number, line in enumerate(path.read_bytes().splitlines(), 1):
    try:
      run = configs.upgraded(json.loads(line))
      seeds.setdefault((run["task"], spec.respelled(run["attention"])), []).append(run["seed"])
      settings[run["task"]] = run["settings"]
    except (ValueError, KeyError, TypeError):
      raise ValueError(
        f"{path}: line {number} is no cell of a grid; restore the file, or give another --workdir"
      ) from None
  return [Cell(task, attention, tuple(chosen), settings[task]) for (task, attention), chosen in seeds.items()]


def pending(cells: Sequence[Cell], rows: Iterable[Mapping[str, Any]]) -> list[Cell]:
  """The cells still to run, with the seeds they lack: done and refused runs are finished, failed ones are run again."""
  finished = {(row["task"], row["attention"], row["seed"]) for row in rows if row["status"] != "failed"}
  missing = (tuple(s for s in cell.seeds if (cell.task, cell.attention, s) not in finished) for cell in cells)
  return [dataclasses.replace(cell, seeds=seeds) for cell, seeds in zip(cells, missing, strict=True) if seeds]


def outcome(
  cell: Cell, run_cell: Callable[[Cell], Iterable[Mapping[str, Any]]], folder: pathlib.Path, stamp: Stamp | None = None
) -> Iterator[dict[str, Any]]:
  """Runs one cell and yields one row for each of its seeds, whatever happens; a keyboard interrupt passes.

  Args:
    cell: what is run.
    run_cell: returns or yields one row a seed, with at least `seed` and the measurements.
    folder: where the traceback of a failure is kept.
    stamp: gives the fields of a row that hold whether it succeeds or not: command, commit, versions, device, config.

  Yields:
    Rows with `status`: `attention.base.Unsupported` makes refused rows, any other exception failed ones.
    `config_digest` is added where there is a config.
  """
  missing = list(cell.seeds)
  complete = lambda row: _stamped({"task": cell.task, "attention": cell.attention, **row}, stamp, cell)
  try:
    for fields in run_cell(cell):
      row = complete({"status": "done", **fields})
      records.check(row)
      yield row
      with contextlib.suppress(ValueError):
        missing.remove(row["seed"])
    if missing:
      raise RuntimeError(f"the run returned no row for seeds {', '.join(map(str, missing))}")
  except base.Unsupported as error:
    status, reason = "refused", _first_line(error)
  except Exception as error:
    file = _write_traceback(cell, folder)
    status, reason = "failed", f"{type(error).__name__}: {_first_line(error)} (traceback in {folder.name}/{file})"
  else:
    return
  for seed in missing:
    yield complete({"seed": seed, "status": status, "reason": reason})


@dataclasses.dataclass
class Progress:
  """The training runs of a session over all its waves: `total` that will be done as far as is known, and `done`."""

  total: int = 0
  done: int = 0
  begun: float = dataclasses.field(default_factory=time.monotonic)

  def left(self) -> str:
    """The time that is left, at the mean time of a run so far."""
    seconds = (time.monotonic() - self.begun) / self.done * (self.total - self.done)
    return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"


def record(
  outcomes: Iterable[tuple[Cell, Iterable[Mapping[str, Any]]]],
  progress: Progress,
  write: Callable[[Mapping[str, Any]], None],
  log: Callable[[str], None],
) -> dict[str, int]:
  """Gives each row to `write` as it comes, and logs the progress, which counts the cells; the rows by status."""
  counts = dict.fromkeys(records.STATUSES, 0)
  for cell, rows in outcomes:
    progress.done += 1
    log(f"[{progress.done}/{progress.total}] {cell}")
    for row in rows:
      write(row)
      counts[row["status"]] += 1
      if row["status"] != "done":
        log(f"  seed {row['seed']} {row['status']}: {row['reason']}")
    if progress.done < progress.total:
      log(f"  {progress.left()}")
  return counts


def _stamped(row: Mapping[str, Any], stamp: Stamp | None, cell: Cell) -> dict[str, Any]:
  stamped = {**(stamp(cell, row["seed"]) if stamp else {}), **row}
  digest = {"config_digest": records.config_digest(stamped["config"])} if stamped.get("config") else {}
  return digest | stamped


def _write_traceback(cell: Cell, folder: pathlib.Path) -> str:
  folder.mkdir(parents=True, exist_ok=True)
  slug = re.sub(r"[^A-Za-z0-9.=-]+", "_", f"{cell.task}_{cell.attention}")[:80].strip("_")
  name = f"{slug}_{zlib.crc32(str(cell).encode()):08x}.txt"
  (folder / name).write_text(f"{cell}\n\n{traceback.format_exc()}", encoding="utf-8")
  return name


def _first_line(error: BaseException) -> str:
  lines = str(error).strip().splitlines() or [type(error).__name__]
  return lines[0][:300]


def _lines(cell: Cell, held: Collection[tuple[str, str, int]]) -> list[str]:
  """The lines of a cell's runs, but for those that are `held`."""
  seeds = [seed for seed in cell.seeds if (cell.task, cell.attention, seed) not in held]
  shared = {"schema": configs.SCHEMA, "task": cell.task, "attention": cell.attention, "settings": cell.settings}
  runs = [shared | {"seed": seed} for seed in seeds]
  return [json.dumps(run, sort_keys=True, ensure_ascii=False) + "\n" for run in runs]


def _normal(settings: Mapping[str, Any]) -> Any:
  return json.loads(json.dumps(settings))


def _disagreement(path: pathlib.Path, cell: Cell, before: Mapping[str, Any]) -> str:
  now = _normal(cell.settings)
  names = [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
  shown = ", ".join(f"{name}={before.get(name, 'default')} (now {now.get(name, 'default')})" for name in names)
  return f"{path} holds {cell.task} with {shown}: ask for the same settings or give another --workdir"
