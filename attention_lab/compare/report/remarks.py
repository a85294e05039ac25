"""What a table says of itself beside its numbers: its label, and remarks on rows that were not made alike."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.results.records import Row


def label(rows: Sequence[Row]) -> str:
  """What tells the table of these rows from others of its task: commit, configuration and data."""
  row = rows[0]
  digests = " ".join(digest[:8] for _, digest in sorted((row.get("digests") or {}).items()))
  parts = [("commit", row.get("commit")), ("configuration", row.get("config_digest", "")[:8]), ("data", digests)]
  return ", ".join(f"{name} {value}" for name, value in parts if value)


def remarks(done: Sequence[Row]) -> list[str]:
  """What makes the finished rows of a table less comparable than they look."""
  said = []
  for name, effect in (
    ("device", "step times are not comparable across them"),
    ("versions", "numbers may differ by rounding"),
  ):
    found = sorted({_describe(row.get(name)) for row in done} - {""})
    if len(found) > 1:
      said.append(f"The rows were made with different {name.rstrip('s')}s ({'; '.join(found)}): {effect}.")
  diverged = [f"{row['attention']} seed {row['seed']}" for row in done if row["metrics"][row["primary"]] is None]
  if diverged:
    said.append(f"No finite score, so no mean: {', '.join(diverged)}.")
  return said


def _describe(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
  return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
