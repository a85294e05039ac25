"""The rows of a benchmark in `rows.jsonl`, one for each mode, length and variant: written, read, and set side by side.

A row is {mode, length, attention, status, reason, digest, settings, commit, versions, device, …}; `done` rows hold
`times` (seconds, one a round), `baseline_times` (of the same rounds) and `memory` (bytes). Rows are added and never
changed. Of several rows with one key the last one that is done counts.
"""

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attention_lab.results import records

FILE = "rows.jsonl"
STATUSES = ("done", "refused", "skipped", "failed")
REQUIRED = ("mode", "length", "attention", "status", "reason", "digest", "settings")

Row = dict[str, Any]


def append(path: str | os.PathLike[str], row: Mapping[str, Any]) -> None:
  """Adds a row in one synced write; ValueError for a missing field."""
  check(row)
  records.append_line(path, row)


def read(path: str | os.PathLike[str]) -> records.Records:
  """Every complete row, and the numbers of the lines that a kill cut short."""
  return records.read_lines(path, check)


def check(row: Any) -> None:
  """Raises ValueError for an object that lacks a required field or has an unknown status."""
  records.require(row, REQUIRED, STATUSES)


def key(row: Mapping[str, Any]) -> tuple[Any, ...]:
  """The identity of a measurement: digest of settings, code and device, then mode, length and variant."""
  return row["digest"], row["mode"], row["length"], row["attention"]


def current(rows: Iterable[Row]) -> list[Row]:
  """One row for each key: the last that is done, else the last."""
  latest: dict[tuple[Any, ...], Row] = {}
  for row in rows:
    if row["status"] == "done" or latest.get(key(row), {}).get("status") != "done":
      latest[key(row)] = row
  return list(latest.values())


def exact_names(rows: Sequence[Row]) -> list[str]:
  """The implementations of softmax over all readable keys, in order of appearance."""
  return list(dict.fromkeys(row["attention"] for row in rows if row["exact"]))


def log_times(rows: Sequence[Row]) -> dict[int, dict[str, list[float]]]:
  """{length: {name: logarithm of the time in each round, over the baseline's of the same round where all have it}}.

  Rows of several runs meet only through the baseline, which ran beside all of them.
  """
  table: dict[int, dict[str, list[float]]] = {}
  for length in sorted({row["length"] for row in rows}):
    beside = [row for row in rows if row["length"] == length]
    alone = len({row.get("session") for row in beside}) == 1 and any("baseline_times" not in row for row in beside)
    paired = beside if alone else [row for row in beside if "baseline_times" in row]
    table[length] = {
      row["attention"]: [
        math.log(a / b)
        for a, b in zip(row["times"], [1.0] * row["rounds"] if alone else row["baseline_times"], strict=True)
      ]
      for row in paired
    }
  return table


def peak_bytes(rows: Sequence[Row]) -> dict[int, dict[str, float]]:
  """{length: {name: bytes of arguments, outputs and temporaries together}}, where the memory is known."""
  table: dict[int, dict[str, float]] = {}
  for row in rows:
    if row.get("memory"):
      table.setdefault(row["length"], {})[row["attention"]] = float(row["memory"]["peak"])
  return table
