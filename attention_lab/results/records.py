"""Append-only files of records, one JSON object a line, and the rows of a comparison in `results.jsonl`.

A row is one run: {task, attention, seed, status, reason, parameters, flops_per_token, step_time (seconds), peak_bytes,
metrics, curve [[step, validation primary], …], primary, higher_is_better, chance, controls, command, commit, digests,
versions, device, schema, config, config_digest}. Numbers that are not finite are written as null: a diverged run has no
score.
"""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from attention_lab import config as configs
from attention_lab.attention import spec

RESULTS = "results.jsonl"
STATUSES = ("done", "refused", "failed")
CELL_FIELDS = ("config.seed", "config.model.attention")  # fields of a configuration that differ between rows of a table
_REQUIRED = ("task", "attention", "seed", "status")
_REQUIRED_WHEN_DONE = ("metrics", "primary", "higher_is_better")

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Records:
  """The content of a file: its rows in order, and the numbers of the lines that a killed run left incomplete."""

  rows: list[Row]
  damaged: list[int]


def append(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
  """Adds one row of a comparison; ValueError for a missing field."""
  check(row)
  append_line(path, row)


def read(path: str | os.PathLike[str]) -> Records:
  """Every complete row of a comparison's file, with duplicates; none of a file that does not exist."""
  return read_lines(path, check)


def append_line(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
  """Adds any object as a line in a single synced write, after ending a line that a kill broke."""
  line = json.dumps(_plain(row), ensure_ascii=False, allow_nan=False).encode() + b"\n"
  target = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
  try:
    end = os.lseek(target, 0, os.SEEK_END)
    if end and os.pread(target, 1, end - 1) != b"\n":
      line = b"\n" + line
    if os.write(target, line) != len(line):
      raise OSError(f"{path}: only a part of a row was written: free some disk space and start again")
    os.fsync(target)
  finally:
    os.close(target)


def read_lines(path: str | os.PathLike[str], accept: Callable[[Any], object]) -> Records:
  """Every line of a file that is JSON and for which `accept` raises no ValueError; the others are damaged.

  What a row says of its variant, as `attention` or `variant`, comes in its present spelling, whatever the file holds:
  rows are matched by it; its settings come in their present meaning (`config.upgraded`).
  """
  rows, damaged = [], []
  content = pathlib.Path(path).read_bytes() if pathlib.Path(path).exists() else b""
  for number, line in enumerate(content.split(b"\n"), 1):
    try:
      row = json.loads(line) if line.strip() else None
      if row is not None:
        accept(row)
        names = {name: spec.respelled(row[name]) for name in ("attention", "variant") if name in row}
        rows.append(configs.upgraded(row) | names)
    except ValueError:
      damaged.append(number)
  return Records(rows, damaged)


def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """The question that a row answers: task, attention, seed and digest of its configuration, not code and data."""
  return *cell(row), row.get("config_digest", "")


def cell(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """The cell of the grid that a row belongs to: task, attention and seed."""
  return row["task"], row["attention"], row["seed"]


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """The identity of a row with the code and data that made it; two rows of one key are one run counted twice."""
  return *identity(row), _digests(row), row.get("commit", "")


def group(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """The properties that rows must share to stand in one table: task, metric, configuration, data and commit."""
  return row["task"], row.get("primary", ""), row.get("config_digest", ""), _digests(row), row.get("commit", "")


def distinct(rows: Iterable[Row]) -> list[Row]:
  """Each run once, in order of appearance: the first done row of a key wins, and a success erases failures.

  A failure without a `config_digest` is erased by any success of its task, attention and seed.
  """
  rows = list(rows)
  done = {name(row) for row in rows if row["status"] == "done" for name in (identity, cell)}
  runs: dict[tuple[Any, ...], Row] = {}
  for row in rows:
    if row["status"] != "done" and (identity(row) if row.get("config_digest") else cell(row)) in done:
      continue
    if row["status"] == "done":
      runs.setdefault(key(row), row)
    else:
      runs[*identity(row), row.get("commit", "")] = row
  return list(runs.values())


def config_digest(config: Mapping[str, Any]) -> str:
  """The first 16 hex digits of the SHA-256 of a flat configuration, without the seed and attention of its cell.

  Rows of one table share it, so that a row of another budget, schedule or model size cannot slip in.
  """
  shared = {name: value for name, value in config.items() if name not in CELL_FIELDS}
  return hashlib.sha256(json.dumps(_plain(shared), sort_keys=True).encode()).hexdigest()[:16]


def check(row: Any) -> None:
  """Raises ValueError, which names what is missing or wrong, for a row that could not stand in a comparison's table."""
  done = isinstance(row, Mapping) and row.get("status") == "done"
  require(row, _REQUIRED + (_REQUIRED_WHEN_DONE if done else ()), STATUSES)
  if done and row["primary"] not in row["metrics"]:
    raise ValueError(f"metrics lack the primary metric {row['primary']!r}; they have {', '.join(row['metrics'])}")


def require(row: Any, fields: Sequence[str], statuses: Sequence[str]) -> None:
  """Raises ValueError for an object that lacks one of the fields, or whose status is not one of these."""
  if not isinstance(row, Mapping):
    raise ValueError(f"a row is a JSON object, got {type(row).__name__}")
  missing = [name for name in fields if name not in row]
  if missing:
    raise ValueError(f"a row needs {', '.join(fields)}; it lacks {', '.join(missing)}")
  if row["status"] not in statuses:
    raise ValueError(f"status {row['status']!r} is not one of {', '.join(statuses)}")


def _digests(row: Mapping[str, Any]) -> str:
  return json.dumps(row.get("digests") or {}, sort_keys=True)


def _plain(value: Any) -> Any:
  if isinstance(value, Mapping):
    return {str(name): _plain(item) for name, item in value.items()}
  if isinstance(value, str | bool | int | None):
    return value
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, list | tuple):
    return [_plain(item) for item in value]
  if hasattr(value, "tolist"):
    return _plain(value.tolist())
  return str(value)
