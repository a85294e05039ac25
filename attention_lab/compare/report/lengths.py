"""Scores at other lengths than the one trained at: metrics named `accuracy@128`, and the effective length."""

import re
from collections.abc import Mapping

from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, pages, statistics

AT = re.compile(r"(.+)@(\d+)")
EFFECTIVE = "effective_length"


def scores(entry: Entry) -> dict[int, statistics.Interval]:
  """Length -> interval over the seeds of the metric at that length, where every finished seed has it."""
  values_at: dict[int, list[float]] = {}
  for row in entry.done:
    for name, value in row["metrics"].items():
      match = AT.fullmatch(name)
      if match and value is not None and match[1] == _metric(row["metrics"], row["primary"]):
        values_at.setdefault(int(match[2]), []).append(value)
  whole = {length: values for length, values in values_at.items() if len(values) == len(entry.done)}
  return {length: statistics.interval(whole[length]) for length in sorted(whole)}


def sheet(table: Table, numbers: Mapping[str, int] = {}) -> pages.Table | None:
  """Variant, effective length, and the score at each length; None where no row has one."""
  rows = {entry.attention: (entry, scores(entry)) for entry in table.scored}
  lengths = sorted({length for _, intervals in rows.values() for length in intervals})
  if len(lengths) < 2:
    return None
  digits = formatting.decimals(interval for _, intervals in rows.values() for interval in intervals.values())
  effective = any(_effective(entry) for entry, _ in rows.values())
  head = [
    "variant",
    *(["effective length"] if effective else []),
    *(formatting.count(float(length)) for length in lengths),
  ]
  cells = [
    [
      f"`{name}`",
      *([_effective(entry) or "–"] if effective else []),
      *(formatting.plus_minus(intervals.get(length), digits) for length in lengths),
    ]
    for name, (entry, intervals) in rows.items()
    if intervals
  ]
  return pages.Table(head, cells, kind="lengths", marks=numbers)


def explanation(table: Table) -> str:
  """What the sheet shows."""
  metric = next(name for row in table.done if (name := _metric(row["metrics"], row["primary"])))
  text = (
    f"Test {formatting.metric(metric)} at each length, mean ± 95 % over seeds; the model is the same at all of them."
  )
  if any(_effective(entry) for entry in table.scored):
    text += " The effective length is the task's own measure: its median over seeds, and the lowest to the highest."
  return text


def _metric(metrics: Mapping[str, float | None], primary: str) -> str:
  """The metric that is given at lengths: the primary one where it is among them, else the first."""
  names = list(dict.fromkeys(match[1] for name in metrics if (match := AT.fullmatch(name))))
  return primary if primary in names else names[0] if names else ""


def _effective(entry: Entry) -> str:
  values = sorted(value for row in entry.done if (value := row["metrics"].get(EFFECTIVE)) is not None)
  if not values:
    return ""
  shown = [formatting.count(float(value)) for value in (values[(len(values) - 1) // 2], values[0], values[-1])]
  return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"
