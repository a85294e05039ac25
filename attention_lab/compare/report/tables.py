"""From rows of the ledger to tables: one for each task and each set of rows that may be compared at all."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from attention_lab.compare.report import fairness
from attention_lab.results import power, records, statistics

SOLVED = 0.99
Row = records.Row


@dataclasses.dataclass(frozen=True)
class Entry:
  """One variant in one table.

  `standing` is best, tied, behind, undecided (too few shared seeds, or a table that ranks no row), alone,
  diverged (a seed without a finite score), refused or failed. `scores` maps seed -> primary metric of the finished
  runs; `interval` is None unless all are finite.
  """

  attention: str
  standing: str
  rows: tuple[Row, ...]
  scores: Mapping[int, float | None]
  interval: statistics.Interval | None
  difference: statistics.Difference | None
  time_ratio: float | None

  @property
  def done(self) -> list[Row]:
    return [row for row in self.rows if row["status"] == "done"]

  @property
  def reasons(self) -> list[str]:
    """Why runs were refused or failed, each reason once."""
    return list(dict.fromkeys(row.get("reason") or "no reason given" for row in self.rows if row["status"] != "done"))

  @property
  def solved(self) -> int:
    """How many seeds reached 0.99."""
    return sum(score is not None and score >= SOLVED for score in self.scores.values())

  @property
  def solved_share(self) -> float | None:
    """The share of the seeds that were run, failed ones among them, which reached 0.99; None where none was."""
    seeds = {row["seed"] for row in self.rows}
    return self.solved / len(seeds) if seeds else None

  @property
  def positive(self) -> bool:
    """Whether the row is the table's positive control."""
    return any(row.get("positive") for row in self.rows)

  @property
  def effect(self) -> float | None:
    """Hedges' g of the difference to the best row; None without one, and with fewer than three shared seeds."""
    gap = self.difference
    if gap is None or gap.deviation is None:
      return None
    return power.hedges(gap.interval.mean, gap.deviation, gap.interval.n, gap.prior)

  @property
  def score(self) -> statistics.Interval:
    """The interval of a row that has a score; ValueError for a row without one."""
    if self.interval is None:
      raise ValueError(f"{self.attention} has no score")
    return self.interval

  @property
  def gap(self) -> statistics.Difference:
    """The difference to the best row; ValueError for a row without one."""
    if self.difference is None:
      raise ValueError(f"{self.attention} is compared with no row")
    return self.difference

  @property
  def finite(self) -> dict[int, float]:
    """The scores by seed, without those that are not finite."""
    return {seed: score for seed, score in self.scores.items() if score is not None}

  @property
  def tuning(self) -> Mapping[str, Any]:
    """How the row's setting was found, as its rows record it; empty where they do not."""
    return (self.done[0].get("tuning") if self.done else None) or {}

  @property
  def changed(self) -> Mapping[str, Any]:
    """The sizes that were changed to meet the budget."""
    return ((self.done[0].get("budget") if self.done else None) or {}).get("changed") or {}

  def cost(self, name: str) -> float | None:
    """Median over the finished seeds of a number that rows hold; None where none holds it.

    parameters, flops_per_token, step_time (s), wall_time (s), peak_bytes, state_bytes, receptive_field (positions).
    """
    return _median(self.done, name)


@dataclasses.dataclass(frozen=True)
class Table:
  """The comparison of all variants on one task; `entries` from best to worst, those without a score last.

  `label` tells tables of one task apart (its commit and digests) and is empty when there is only one. `baseline` is the
  variant whose step time is 1. `references` are chance and the task's controls on the test split.
  """

  task: str
  label: str
  primary: str
  higher_is_better: bool
  entries: tuple[Entry, ...]
  references: Mapping[str, float]
  baseline: str
  notes: tuple[str, ...]

  @property
  def scored(self) -> list[Entry]:
    return [entry for entry in self.entries if entry.interval]

  @property
  def seeds(self) -> list[int]:
    return sorted({seed for entry in self.entries for seed in entry.scores})

  @property
  def rows(self) -> list[Row]:
    return [row for entry in self.entries for row in entry.rows]

  @property
  def done(self) -> list[Row]:
    return [row for entry in self.entries for row in entry.done]

  @property
  def footing(self) -> fairness.Footing:
    """What was done alike for all rows: match, target of the budget, trials, search space, second chances."""
    return fairness.footing(self.done[0]) if self.done else fairness.Footing()

  @property
  def match(self) -> str:
    """The budget that all rows meet: parameters, flops, state, time, or none."""
    return self.footing.match

  @property
  def trials(self) -> int:
    """Settings that were tried on validation for each row."""
    return self.footing.trials

  @property
  def chances(self) -> bool:
    """Whether rows behind on validation had a second chance."""
    return self.footing.chances

  @property
  def tests(self) -> int:
    """The pairs of rows that p-values are corrected for: those that share two seeds or more."""
    scored = [entry.scores.keys() for entry in self.scored]
    return sum(len(seeds & other) > 1 for i, seeds in enumerate(scored) for other in scored[i + 1 :])

  @property
  def broken(self) -> list[Entry]:
    """Positive controls that did not reach 0.99 on every seed that was run: what the table shows is then undecided."""
    return [entry for entry in self.entries if entry.positive and entry.solved_share != 1.0]

  @property
  def lossy(self) -> str:
    """What the tokenizer of the rows loses of the text, for which the table is undecided; "" where it loses nothing."""
    return next((row["lossy"] for row in self.done if row.get("lossy")), "")

  @property
  def jumps(self) -> bool:
    """Whether the share of seeds that reach 0.99 says something: a score in [0, 1] that some run brings there."""
    scores = [score for entry in self.entries for score in entry.scores.values() if score is not None]
    return self.higher_is_better and bool(scores) and SOLVED <= max(scores) <= 1 and min(scores) >= 0


def build(rows: Iterable[Row], order: Sequence[str] = ()) -> list[Table]:
  """One table for each task and set of comparable rows; `order` lists variants as they were asked for.

  Rows of another commit, configuration or data are set apart, never averaged; refused and failed rows join the table
  of their commit, or the task's last one. ValueError, in one line, for rows that were not treated alike
  (`fairness.check`).
  """
  rows = records.distinct(rows)
  fairness.check(rows)
  order = list(dict.fromkeys((*order, *(row["attention"] for row in rows))))
  tables = []
  for task in dict.fromkeys(row["task"] for row in rows):
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
      if row["task"] == task and row["status"] == "done":
        groups.setdefault(records.group(row), []).append(row)
    others = [row for row in rows if row["task"] == task and row["status"] != "done"]
    if not groups:
      groups[task,] = []
    commits = {group_key[-1]: group_key for group_key in groups}
    for row in reversed(others):
      members = groups[commits.get(row.get("commit", ""), list(groups)[-1])]
      if records.cell(row) not in map(records.cell, members):
        members.append(row)
    tables += [_table(members, order, _label(members) if len(groups) > 1 else "") for members in groups.values()]
  return tables


def _table(rows: list[Row], order: Sequence[str], label: str) -> Table:
  done = [row for row in rows if row["status"] == "done"]
  first: Row = done[0] if done else {"primary": "", "higher_is_better": True}
  references = {"chance": first.get("chance"), **(first.get("controls") or {})}
  names = [name for name in order if any(row["attention"] == name for row in rows)]
  finished = [name for name in names if any(row["attention"] == name for row in done)]
  baseline = finished[0] if finished else ""
  rows = sorted(rows, key=lambda row: row["seed"])
  groups = {name: tuple(row for row in rows if row["attention"] == name) for name in names}
  entries = _entries(groups, first["higher_is_better"], _median(groups.get(baseline, ()), "step_time"))
  table = Table(
    rows[0]["task"],
    label,
    first["primary"],
    first["higher_is_better"],
    entries,
    {name: float(value) for name, value in references.items() if value is not None},
    baseline,
    tuple(_remarks(done)),
  )
  if not (table.broken or table.lossy):
    return table
  entries = tuple(dataclasses.replace(entry, standing="undecided") if entry.interval else entry for entry in entries)
  return dataclasses.replace(table, entries=entries)


def _entries(groups: Mapping[str, tuple[Row, ...]], higher: bool, unit: float | None) -> tuple[Entry, ...]:
  scores = {name: _scores(rows) for name, rows in groups.items()}
  finite = {name: {seed: s for seed, s in values.items() if s is not None} for name, values in scores.items()}
  whole = {name: values for name, values in finite.items() if values and len(values) == len(scores[name])}
  compared = statistics.compare(whole, higher) if whole else statistics.Comparison("", {})
  entries = []
  for name, rows in groups.items():
    time = _median([row for row in rows if row["status"] == "done"], "step_time")
    mean = statistics.interval(list(whole[name].values())) if name in whole else None
    ratio = time / unit if time and unit else None
    standing = _standing(name, rows, mean, compared)
    entries.append(Entry(name, standing, rows, scores[name], mean, compared.differences.get(name), ratio))
  sign = -1.0 if higher else 1.0
  ranks = {"diverged": 1, "refused": 2, "failed": 3}
  return tuple(
    sorted(
      entries, key=lambda entry: (ranks.get(entry.standing, 0), sign * entry.interval.mean if entry.interval else 0)
    )
  )


def _standing(name: str, rows: Sequence[Row], mean: statistics.Interval | None, compared: statistics.Comparison) -> str:
  statuses = {row["status"] for row in rows}
  if "done" not in statuses:
    return "refused" if "refused" in statuses else "failed"
  if not mean:
    return "diverged"
  if name == compared.best:
    return "best" if len(compared.differences) else "alone"
  return compared.differences[name].standing if name in compared.differences else "undecided"


def _scores(rows: Sequence[Row]) -> dict[int, float | None]:
  values = {row["seed"]: row["metrics"][row["primary"]] for row in rows if row["status"] == "done"}
  return {seed: None if value is None else float(value) for seed, value in values.items()}


def _median(rows: Iterable[Row], name: str) -> float | None:
  values = sorted(row[name] for row in rows if row.get(name) is not None)
  return (values[(len(values) - 1) // 2] + values[len(values) // 2]) / 2 if values else None


def _label(rows: Sequence[Row]) -> str:
  """What tells the table of these rows from others of its task: commit, configuration and data."""
  row = rows[0]
  digests = " ".join(digest[:8] for _, digest in sorted((row.get("digests") or {}).items()))
  parts = [("commit", row.get("commit")), ("configuration", row.get("config_digest", "")[:8]), ("data", digests)]
  return ", ".join(f"{name} {value}" for name, value in parts if value)


def _remarks(done: Sequence[Row]) -> list[str]:
  """What makes the finished rows of a table less comparable than they look."""
  remarks = []
  for name, effect in (
    ("device", "step times are not comparable across them"),
    ("versions", "numbers may differ by rounding"),
  ):
    kinds = sorted({_describe(row.get(name)) for row in done} - {""})
    if len(kinds) > 1:
      remarks.append(f"The rows were made with different {name.rstrip('s')}s ({'; '.join(kinds)}): {effect}.")
  diverged = [f"{row['attention']} seed {row['seed']}" for row in done if row["metrics"][row["primary"]] is None]
  if diverged:
    remarks.append(f"No finite score, so no mean: {', '.join(diverged)}.")
  return remarks


def _describe(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{name} {item}" for name, item in sorted(value.items()))
  return "" if value is None or (isinstance(value, float) and math.isnan(value)) else str(value)
