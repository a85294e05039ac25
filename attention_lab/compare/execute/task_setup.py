"""The setup of a task: which of its rows can do it, at what budget, with which settings to try."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attention_lab import config as configs
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
  """The setup that the rows of one task start from.

  Attributes:
    name: of the task, `BINARY` or `BINARY:DATASET`.
    rows: all that the grid ever held, in the order in which they came: the first is the baseline.
    refused: why a row cannot do the task, by row.
    trial_settings: the settings of a row's trials, by row.
    spaces: the search space, as it is recorded, by row.
    controls: scores of the data set's controls, by name.
    seeds: number of seeds to begin with.
  """

  name: str
  rows: list[str]
  refused: dict[str, str] = dataclasses.field(default_factory=dict)
  trial_settings: dict[str, Sequence[Mapping[str, Any]]] = dataclasses.field(default_factory=dict)
  spaces: dict[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
  controls: Mapping[str, float] = dataclasses.field(default_factory=dict)
  seeds: int = 1

  def cell(self, row: str, settings: Mapping[str, Any]) -> grid.Cell:
    """The cell of a row with its first seeds."""
    return grid.Cell(self.name, row, tuple(range(self.seeds)), settings)


def prepare(
  runner: JobRunner, name: str, held: Sequence[grid.Cell], folder: pathlib.Path, log: Callable[[str], None]
) -> TaskSetup:
  """Builds every row of a task and brings it to its budget, which goes into `runner.budgets`.

  Nothing is compiled, unless time is matched, and nothing is written.

  Args:
    runner: builds the tasks.
    name: of the task.
    held: the cells that the workdir's grid has already.
    folder: the workdir, whose budgets are taken again.
    log: gets a line for each budget.

  Raises:
    ValueError: for what holds of the whole task; what one row cannot do makes that row refused.
  """
  comparison = runner.comparison
  before = [cell for cell in held if cell.task == name]
  setup = TaskSetup(name, list(dict.fromkeys([*(cell.attention for cell in before), *comparison.specs])))
  built: dict[str, Task] = {}
  for row in setup.rows:
    try:
      built[row] = runner.build(name, _config(runner, setup, row))
    except Unsupported as refusal:
      setup.refused[row] = str(refusal)
  if built:
    first = next(iter(built.values()))
    if comparison.protocol.positive and not first.higher_is_better:
      why = f"a share of solved examples shows it, and {name} has {first.primary}"
      raise ValueError(f"--positive={comparison.protocol.positive} has no meaning for {name}: {why}; leave it out")
    setup.controls = first.source.controls
    _match_budgets(runner, setup, built, folder, log)
    setup.seeds = _first_seeds(runner, setup, built, before)
    for row in built:
      _sample_trials(runner, setup, row)
  return setup


def save_budgets(folder: pathlib.Path, runner: JobRunner, setup: TaskSetup) -> None:
  """Writes the budgets that are new, so that a later pass takes the same ones."""
  known = _saved_budgets(folder, setup.name)
  for row in setup.rows:
    budget = runner.budgets.get((setup.name, row))
    if budget and row not in known:
      line = {"task": setup.name, "attention": row, "budget": dataclasses.asdict(budget)}
      records.append_line(folder / FILE, line)


def _config(runner: JobRunner, setup: TaskSetup, row: str) -> configs.Config:
  return runner.config(setup.cell(row, {}))


def _match_budgets(
  runner: JobRunner, setup: TaskSetup, built: Mapping[str, Task], folder: pathlib.Path, log: Callable[[str], None]
) -> None:
  kind, name = runner.comparison.protocol.match, setup.name
  if kind == "none":
    return
  saved, first = _saved_budgets(folder, name), next(iter(built))
  build = lambda config: runner.build(name, config)
  baseline = _config(runner, setup, first)
  target = saved[first]["target"] if first in saved else budgets.measure(kind, built[first], baseline, runner.mesh)
  rival = baseline if kind == "time" else None
  for row in built:
    try:
      config = _config(runner, setup, row)
      fields = saved.get(row)
      budget = Budget(**fields) if fields else budgets.match(kind, config, target, build, runner.mesh, baseline=rival)
      runner.budgets[name, row] = budget
      log(f"{name} · {row} · {budgets.describe(budget)}")
    except Unsupported as refusal:
      setup.refused[row] = str(refusal)


def _saved_budgets(folder: pathlib.Path, name: str) -> dict[str, dict[str, Any]]:
  """The fields of the budgets that a workdir holds for a task, by row."""
  lines = records.read_lines(folder / FILE, _check_line).rows
  return {line["attention"]: line["budget"] for line in lines if line["task"] == name}


def _check_line(line: Any) -> None:
  if not isinstance(line, Mapping) or not {"task", "attention", "budget"} <= line.keys():
    raise ValueError("a line of budgets has task, attention and budget")


def _first_seeds(runner: JobRunner, setup: TaskSetup, built: Mapping[str, Task], before: Sequence[grid.Cell]) -> int:
  """The number of seeds to begin with: as the protocol says, and under "auto" no fewer than the grid holds."""
  protocol, flops = runner.comparison.protocol, None
  first, task = next(iter(built.items()))
  if not protocol.seeds:
    config = _config(runner, setup, first)
    try:
      per_token = budgets.measure("flops", task, config, runner.mesh)
      flops = per_token * task.tokens_per_example * config.batch * config.steps
    except ValueError:
      flops = None
  count = protocol.first_seeds(flops)
  return max([count, *(len(cell.seeds) for cell in before)]) if protocol.seeds == AUTO else count


def _sample_trials(runner: JobRunner, setup: TaskSetup, row: str) -> None:
  config, trials = _config(runner, setup, row), runner.comparison.protocol.trials
  space = search_space.shared_space(config) | search_space.variant_space(config_checks.variants(config.model))
  setup.trial_settings[row] = search_space.sample(space, trials)
  setup.spaces[row] = search_space.as_row(space) if trials else {}
