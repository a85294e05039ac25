"""Equal budgets: each row's model is resized until it costs what the baseline's costs, to within 1 %.

The width of the MLP is solved first, then the width of the model, then the sizes that the variant declares to be mere
sizes (`Attention.resizable`), each with the MLP as the fine adjustment where there is one. For the state, which no MLP
has a part in, the width of heads comes first. What cannot be met is refused, with the nearest that was reached.
"""

import dataclasses
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab.attention.base import Unsupported
from attention_lab.compare.budget import knobs as budget_knobs
from attention_lab.compare.budget import model_stats, step_timer
from attention_lab.compare.budget.model_size import TOLERANCE, Exhausted, Row, applied
from attention_lab.config import Config
from attention_lab.tasks.base import Task
from attention_lab.train import cost, optimizer

__all__ = ["KINDS", "TOLERANCE", "Budget", "applied", "describe", "match", "measure"]

KINDS = ("none", "parameters", "flops", "state", "time")
UNITS = {
  "parameters": "parameters",
  "flops": "FLOPs per token",
  "state": "bytes of decoding state",
  "time": "seconds a step",
}
MOST = {"time": 40}  # models that are measured before a row is given up
OTHERS = 400  # where nothing is compiled

Build = Callable[[Any], Task]


@dataclasses.dataclass(frozen=True)
class Budget:
  """What a row was brought to; `changed` are fields of config.model, and `before` what stood there."""

  match: str
  target: float
  value: float
  changed: Mapping[str, Any]
  before: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def as_row(self) -> dict[str, Any]:
    """As the ledger keeps it."""
    return {"match": self.match, "target": self.target, "value": self.value, "changed": dict(self.changed)}


def measure(kind: str, task: Task, config: Config, mesh: Mesh) -> float:
  """What a row costs: trainable parameters, FLOPs per token of a training step, bytes of state, or seconds a step.

  All but the time come from shapes: nothing is compiled, and of the data at most one batch is read. FLOPs are those
  that a run of the one seed `config.seed` reports. The time is the median of `stopwatch.ROUNDS` steps, and of use only
  against another's, measured with it: `match` does so. Unsupported for a row that has no such cost.
  """
  _check(kind)
  if kind == "time":
    return step_timer.seconds(step_timer.Running(task, config, mesh).sample())
  if kind == "state":
    found = model_stats.state_bytes(task)
    if found is None:
      raise Unsupported(f"--match=state needs rows that decode, and {_name(config)} does not: leave it out")
    return float(found)
  parts = model_stats.training(task, config, mesh)
  if kind == "parameters":
    return float(optimizer.count(parts.state.params))
  counted = cost.flops_per_token(parts.step, parts.state, parts.batch, parts.tokens)
  if counted is None:
    raise Unsupported(f"the FLOPs of {_name(config)} cannot be counted: leave it out, or give --match=parameters")
  return counted


def match(
  kind: str, config: Config, target: float, build: Build, mesh: Mesh, *, baseline: Config | None = None
) -> Budget:
  """The changes to `config.model` that bring a row to `target`, what `measure` says of the baseline; none if it is.

  build: the task of a configuration, its data held already. baseline: of --match=time alone, what the target was
  measured of: both steps run in turn, the target times the median ratio of their rounds is the value, and a ratio
  within 1 % is measured a second time and must be so over all rounds. Unsupported, with what was tried and the nearest
  value, where no sizes come within 1 %.
  """
  _check(kind)
  if (kind == "time") != (baseline is not None):
    given = "was given none" if baseline is None else "was given one"
    raise ValueError(f"a baseline goes with --match=time and no other, and --match={kind} {given}")
  if config == baseline:
    return Budget(kind, target, target, {})
  cost_of, problem = _costs(kind, target, build, mesh, baseline), _problems(build, mesh)
  row = Row(config, target, cost_of, problem, most=MOST.get(kind, OTHERS), noisy=kind == "time")
  value = row.value({})
  if row.near(value):
    return Budget(kind, target, value, {})
  try:
    found = row.solve(*budget_knobs.knobs(config.model, kind))
  except Exhausted:
    found, _ = None, row.left.append(f"what would take more than {MOST.get(kind, OTHERS)} models")
  if found is None:
    raise _refusal(kind, config, row)
  changed = {field: new for field, new in found.items() if getattr(config.model, field) != new}
  return Budget(kind, target, row.value(found), changed, budget_knobs.before(config.model, changed))


def describe(budget: Budget) -> str:
  """`mlp_width 256 -> 243: 51,234 parameters for 51,300`."""
  changes = ", ".join(f"{name} {budget.before.get(name)} -> {new}" for name, new in budget.changed.items())
  return f"{changes or 'nothing changed'}: {_number(budget.value)} {UNITS[budget.match]} for {_number(budget.target)}"


def _costs(kind: str, target: float, build: Build, mesh: Mesh, baseline: Config | None) -> Callable[[Config], float]:
  """What a configuration costs; of the time, `target` times its ratio to the baseline, which is compiled here."""
  if baseline is None:
    return lambda config: measure(kind, build(config), config, mesh)
  reference = step_timer.Running(build(baseline), baseline, mesh).sample()

  def seconds(config: Config) -> float:
    step = step_timer.Running(build(config), config, mesh).sample()
    found = step_timer.ratios(step, reference)
    if abs(statistics.median(found) - 1) <= TOLERANCE:
      found += step_timer.ratios(step, reference)
    return target * statistics.median(found)

  return seconds


def _problems(build: Build, mesh: Mesh) -> Callable[[Config], str]:
  """Why a configuration cannot be trained, "" if it can: its loss is traced, and nothing compiled."""

  def problem(config: Config) -> str:
    try:
      task = build(config)
      parts = model_stats.training(task, config, mesh)
      jax.eval_shape(task.loss, parts.state.params, parts.batch, jax.random.key(0))
    except (ValueError, TypeError) as error:
      lines = str(error).splitlines() or [type(error).__name__]
      return lines[0].split(": ")[0][:160]
    return ""

  return problem


def _refusal(kind: str, config: Config, row: Row) -> Unsupported:
  changes, value = row.closest()
  reached = ", ".join(f"{name}={new}" for name, new in changes.items()) or "its own sizes"
  left = row.left + [f"{name} (it differs between parts)" for name in budget_knobs.mixed(config.model)]
  parts = [f"{word} {', '.join(names)}" for word, names in (("tried", row.tried), ("left out", left)) if names]
  asked = f"--match={kind}: {_name(config)} cannot come within {TOLERANCE:.0%} of {_number(row.target)}"
  got = f"nearest {_number(value)} {UNITS[kind]} with {reached} ({'; '.join(parts)})"
  return Unsupported(f"{asked}: {got}; give the row or the baseline other sizes (SPEC@width=…), or --match=none")


def _check(kind: str) -> None:
  if kind not in KINDS[1:]:
    raise ValueError(f"--match={kind} is no budget: give one of {', '.join(KINDS[1:])}, or --match=none")


def _name(config: Config) -> str:
  name, usual = (getattr(model, "architecture", "") for model in (config.model, type(config.model)()))
  return config.model.attention + (f"@architecture={name}" if name != usual else "")


def _number(value: float) -> str:
  return f"{value:,.0f}" if value >= 10 else f"{value:.4g}"
