"""`rows.jsonl`: one line for each mode, length and variant, added and never changed.

A row that is done or refused is not measured again under the same settings, code, versions and device; one that was
skipped or failed is tried again. Of several rows with one key the last one that is done counts.
"""

import importlib.metadata
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attention_lab.benchmark import load, measure, peers
from attention_lab.benchmark.settings import Settings, digest
from attention_lab.results import provenance, records

FILE = "rows.jsonl"
STATUSES = ("done", "refused", "skipped", "failed")
REQUIRED = ("mode", "length", "attention", "status", "reason", "digest", "settings")

Row = dict[str, Any]


def stamp(settings: Settings) -> Row:
  """What holds of every row of a run."""
  versions = provenance.versions() | {
    name: importlib.metadata.version(name) for name in ("torch", "tokamax") if _used(name, settings)
  }
  facts = {
    "settings": settings.facts(),
    "commit": provenance.commit(),
    "versions": versions,
    "device": provenance.device(),
    "cores": load.cores(),
  }
  shared = facts | {"versions": provenance.versions()}  # torch's version is a matter of its own rows
  return facts | {"digest": digest(shared)}


def append(path: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Adds a row in one synced write."""
  check(row)
  records.write(path, row)


def read(path: str | os.PathLike[str]) -> records.Ledger:
  """Every complete row, and the numbers of the lines that a kill cut short."""
  return records.lines(path, check)


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """What a row answers."""
  return row["digest"], row["mode"], row["length"], row["attention"]


def current(rows: Iterable[Row]) -> list[Row]:
  """One row for each key: the last that is done, else the last."""
  kept: dict[tuple[Any, ...], Row] = {}
  for row in rows:
    if row["status"] == "done" or kept.get(key(row), {}).get("status") != "done":
      kept[key(row)] = row
  return list(kept.values())


def missing(names: Sequence[str], case: measure.Case, mark: str, rows: Iterable[Row]) -> list[str]:
  """The names that have neither been measured nor refused at this mode and length."""
  finished = {key(row) for row in rows if row["status"] in ("done", "refused")}
  return [name for name in names if (mark, case.mode, case.length, name) not in finished]


def check(row: Any, required: Sequence[str] = REQUIRED, statuses: Sequence[str] = STATUSES) -> None:
  """Raises ValueError for what cannot be a row."""
  lacking = [name for name in required if not isinstance(row, Mapping) or name not in row]
  if lacking:
    raise ValueError(f"a row needs {', '.join(required)}; it lacks {', '.join(lacking)}")
  if row["status"] not in statuses:
    raise ValueError(f"status {row['status']!r} is not one of {', '.join(statuses)}")


def _used(package: str, settings: Settings) -> bool:
  return any(peers.PACKAGES.get(name, ("",))[0] == package for name in settings.peers)
