"""Learning curves: the validation score against the step, its mean over seeds and the 95 % interval of that mean."""

from collections.abc import Sequence

from attention_lab.compare.report import plots, series
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.results import formatting, statistics, svg

CLIP = 0.12  # the part of training whose worse scores may leave the plot


def figure(table: Table, numbers: plots.Numbers) -> plots.Figure | None:
  """The curves of the rows that have one; None without any."""
  lines = {entry.attention: line for entry in table.scored if len(line := curve(entry)) > 1}
  if not lines:
    return None
  steps = [point[0] for line in lines.values() for point in line]
  drawn = series.Series(
    {name: _bounded(line, table) for name, line in lines.items()},
    svg.Scale(0.0, max(steps)),
    _scale(table, max(steps)),
    "optimizer step",
    formatting.count,
    table,
    f"Validation {table.primary} against step, {table.task} {table.label}",
  )
  band = "Validation score, mean over seeds; band: 95 % interval of the mean."
  if all(len(entry.done) < 2 for entry in table.scored):
    band = "Validation score of the one seed."
  return plots.Figure("Learning", band + drawn.key, series.draw(drawn, numbers), wide=drawn.wide)


def curve(entry: Entry) -> list[series.Point]:
  """(step, low, mean, high) at the steps that all seeds of a row have; low and high are the mean of a single seed."""
  found = []
  for step, values in _values(entry):
    if None not in values:
      here = statistics.interval(values)
      found.append((step, here.low, here.mean, here.high))
  return found


def _values(entry: Entry) -> list[tuple[float, list[float | None]]]:
  seeds = [dict(row.get("curve") or []) for row in entry.done]
  steps = sorted(set.intersection(*(set(seed) for seed in seeds))) if seeds else []
  return [(float(step), [seed[step] for seed in seeds]) for step in steps]


def _scale(table: Table, last: float) -> svg.Scale:
  """What the seeds reach once training has settled; a band of few seeds may go beyond."""
  known = [(step, value) for entry in table.scored for step, values in _values(entry) for value in values]
  finite = [(step, value) for step, value in known if value is not None]
  settled = [value for step, value in finite if step >= CLIP * last]
  return plots.with_references(settled or [value for _, value in finite], table)


def _bounded(line: Sequence[series.Point], table: Table) -> list[series.Point]:
  if not plots.bounded(table):
    return list(line)
  return [(x, max(low, 0.0), mean, min(high, 1.0)) for x, low, mean, high in line]
