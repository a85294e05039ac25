"""What the rows of one task start from: which of them can do it, at what budget, with which settings to try."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attention_lab.attention import Unsupported
from attention_lab.compare.budget import match as budgets
from attention_lab.compare.budget.match import Budget
from attention_lab.compare.execute.runner import JobRunner
from attention_lab.compare.schedule import grid, search_space
from attention_lab.compare.schedule.protocol import AUTO
from attention_lab.models import config_checks
from attention_lab.results import records
from attention_lab.tasks.base import Task

FILE = "budgets.jsonl"


@dataclasses.dataclass
class TaskSetup:
  """Of one task. `rows` are all that the grid ever held, in the order in which they came: the first is the baseline."""

  name: str
  rows: list[str]
  refused: dict[str, str]  # row -> why
  draws: dict[str, Sequence[Mapping[str, Any]]]  # row -> settings of its trials
  spaces: dict[str, Mapping[str, Any]]  # row -> the search space, as it is recorded
  controls: Mapping[str, float]
  seeds: int  # to begin with

  def cell(self, row: str, settings: Mapping[str, Any], seeds: int = 0) -> grid.Cell:
    """A row with its first seeds."""
    return grid.Cell(self.name, row, tuple(range(seeds or self.seeds)), settings)


def prepare(office: JobRunner, name: str, held: Sequence[grid.Cell], folder: pathlib.Path, log: Callable) -> TaskSetup:
  """Builds every row and brings it to its budget; nothing is compiled, unless time is matched, and nothing is written.

  Raises ValueError for what holds of the whole task; what one row cannot do makes that row refused.
  """
  comparison = office.comparison
  before = [cell for cell in held if cell.task == name]
  rows = list(dict.fromkeys([*(cell.attention for cell in before), *comparison.specs]))
  found = TaskSetup(name, rows, {}, {}, {}, {}, 1)
  settings = comparison.settings(name)
  built: dict[str, Task] = {}
  for row in rows:
    try:
      built[row] = office.build(name, office.config(found.cell(row, settings)))
    except Unsupported as refusal:
      found.refused[row] = str(refusal)
  if built:
    first = next(iter(built))
    if comparison.rules.positive and not built[first].higher_is_better:
      why = f"a share of solved examples shows it, and {name} has {built[first].primary}"
      raise ValueError(f"--positive={comparison.rules.positive} has no meaning for {name}: {why}; leave it out")
    found.controls = built[first].source.controls
    _match(office, found, built, folder, log)
    found.seeds = _seeds(office, found, built, before)
    for row in built:
      _draw(office, found, row)
  return found


def keep(folder: pathlib.Path, office: JobRunner, found: TaskSetup) -> None:
  """Writes the budgets that are new, so that a later pass takes the same ones."""
  known = {(one["task"], one["attention"]) for one in _kept(folder)}
  for row in found.rows:
    budget = office.budgets.get((found.name, row))
    if budget and (found.name, row) not in known:
      records.write(folder / FILE, {"task": found.name, "attention": row, "budget": dataclasses.asdict(budget)})


def _match(office: JobRunner, found: TaskSetup, built: Mapping[str, Task], folder: pathlib.Path, log: Callable) -> None:
  kind, name = office.comparison.rules.match, found.name
  if kind == "none":
    return
  kept = {one["attention"]: one["budget"] for one in _kept(folder) if one["task"] == name}
  settings, first = office.comparison.settings(name), next(iter(built))
  build = lambda config: office.build(name, config)
  config = office.config(found.cell(first, settings))
  target = kept[first]["target"] if first in kept else budgets.measure(kind, built[first], config, office.mesh)
  for row in built:
    try:
      own = office.config(found.cell(row, settings))
      fields = kept.get(row)
      rival = {"baseline": config} if kind == "time" else {}
      budget = Budget(**fields) if fields else budgets.match(kind, own, target, build, office.mesh, **rival)
      office.budgets[name, row] = budget
      log(f"{name} · {row} · {budgets.describe(budget)}")
    except Unsupported as refusal:
      found.refused[row] = str(refusal)


def _kept(folder: pathlib.Path) -> list[dict[str, Any]]:
  return records.lines(folder / FILE, _check).rows


def _check(line: Any) -> None:
  if not isinstance(line, Mapping) or not {"task", "attention", "budget"} <= line.keys():
    raise ValueError("a line of budgets has task, attention and budget")


def _seeds(office: JobRunner, found: TaskSetup, built: Mapping[str, Task], before: Sequence[grid.Cell]) -> int:
  """Seeds to begin with: as the rules say, and under "auto" no fewer than the grid holds."""
  rules, flops = office.comparison.rules, None
  first, task = next(iter(built.items()))
  if not rules.seeds:
    config = office.config(found.cell(first, office.comparison.settings(found.name)))
    try:
      one = budgets.measure("flops", task, config, office.mesh)
      flops = one * task.tokens_per_example * config.batch * config.steps
    except ValueError:
      flops = None
  count = rules.first_seeds(flops)
  return max([count, *(len(cell.seeds) for cell in before)]) if rules.seeds == AUTO else count


def _draw(office: JobRunner, found: TaskSetup, row: str) -> None:
  config = office.config(found.cell(row, office.comparison.settings(found.name)))
  whole = search_space.shared(config) | search_space.own(config_checks.variants(config.model))
  found.draws[row] = search_space.draw(whole, office.comparison.rules.trials)
  found.spaces[row] = search_space.as_row(whole) if office.comparison.rules.trials else {}
