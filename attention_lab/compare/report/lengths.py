"""Scores at other lengths than the one trained at: metrics named `accuracy@128`, and the effective length."""

import re
from collections.abc import Mapping

from attention_lab.compare.report import columns, plots, series
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, statistics, svg

AT = re.compile(r"(.+)@(\d+)")
EFFECTIVE = "effective_length"


def scores(entry: Entry) -> dict[int, statistics.Interval]:
  """Length -> interval over the seeds of the metric at that length, where every finished seed has it."""
  found: dict[int, list[float | None]] = {}
  for row in entry.done:
    for name, value in row["metrics"].items():
      match = AT.fullmatch(name)
      if match and match[1] == _metric(row["metrics"], row["primary"]):
        found.setdefault(int(match[2]), []).append(value)
  whole = {length: values for length, values in found.items() if None not in values and len(values) == len(entry.done)}
  return {length: statistics.interval(whole[length]) for length in sorted(whole)}


def sheet(table: Table) -> columns.Sheet | None:
  """Variant, effective length, and the score at each length; None where no row has one."""
  rows = {entry.attention: (entry, scores(entry)) for entry in table.scored}
  lengths = sorted({length for _, found in rows.values() for length in found})
  if len(lengths) < 2:
    return None
  digits = formatting.decimals(one for _, found in rows.values() for one in found.values())
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
      *(formatting.plus_minus(found.get(length), digits) for length in lengths),
    ]
    for name, (entry, found) in rows.items()
    if found
  ]
  return columns.Sheet(head, cells)


def words(table: Table) -> str:
  """What the sheet shows."""
  metric = next(name for row in table.done if (name := _metric(row["metrics"], row["primary"])))
  text = (
    f"Test {formatting.metric(metric)} at each length, mean ± 95 % over seeds; the model is the same at all of them."
  )
  if any(_effective(entry) for entry in table.scored):
    text += " The effective length is the task's own measure: its median over seeds, and the lowest to the highest."
  return text


def figure(table: Table, numbers: plots.Numbers) -> plots.Figure | None:
  """The score against length, a curve for each variant; None where no row has two lengths."""
  lines = {entry.attention: _line(scores(entry), table) for entry in table.scored}
  lines = {name: line for name, line in lines.items() if len(line) > 1}
  if not lines:
    return None
  values = [value for line in lines.values() for _, low, _, high in line for value in (low, high)]
  lengths = sorted({x for line in lines.values() for x, *_ in line})
  margin = svg.padded(lengths, 0.02, log=True)
  scale = svg.Marked(margin.low, margin.high, True, tuple(lengths))
  label = f"Score against length, {table.task} {table.label}"
  drawn = series.Series(
    lines, scale, plots.with_references(values, table), "length (log)", formatting.count, table, label
  )
  caption = "Test score at each length, mean over seeds; band: 95 % interval of the mean."
  return plots.Figure("Score against length", caption + drawn.key, series.draw(drawn, numbers), wide=drawn.wide)


def _line(found: Mapping[int, statistics.Interval], table: Table) -> list[series.Point]:
  ends = (0.0, 1.0) if plots.bounded(table) else (float("-inf"), float("inf"))
  return [(float(x), max(one.low, ends[0]), one.mean, min(one.high, ends[1])) for x, one in found.items()]


def _metric(metrics: Mapping[str, float | None], primary: str) -> str:
  """The metric that is given at lengths: the primary one where it is among them, else the first."""
  given = list(dict.fromkeys(match[1] for name in metrics if (match := AT.fullmatch(name))))
  return primary if primary in given else given[0] if given else ""


def _effective(entry: Entry) -> str:
  values = sorted(value for row in entry.done if (value := row["metrics"].get(EFFECTIVE)) is not None)
  if not values:
    return ""
  shown = [formatting.count(float(one)) for one in (values[(len(values) - 1) // 2], values[0], values[-1])]
  return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"
