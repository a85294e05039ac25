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
from attention_lab.compare.budget import model_size, model_stats, step_timer
from attention_lab.compare.budget.model_size import TOLERANCE
from attention_lab.config import Config
from attention_lab.tasks.base import Task
from attention_lab.train import cost, optimizer

UNITS = {  # of the costs that rows can share, by the value of --match
  "parameters": "parameters",
  "flops": "FLOPs per token",
  "state": "bytes of decoding state",
  "time": "seconds a step",
}
MOST_MODELS = 400  # models that are measured before a row is given up, where nothing is compiled
MOST_TIMED = 40  # the same for the time, which compiles each

Build = Callable[[Any], Task]


@dataclasses.dataclass(frozen=True)
class Budget:
  """The budget that a row was brought to.

  Attributes:
    match: the value of --match.
    target: the baseline's cost.
    value: the row's.
    changed: the fields of config.model that were changed.
    before: the values that stood there.
  """

  match: str
  target: float
  value: float
  changed: Mapping[str, Any]
  before: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def as_row(self) -> dict[str, Any]:
    """The budget as the rows of a table record it."""
    return {"match": self.match, "target": self.target, "value": self.value, "changed": dict(self.changed)}


def measure(kind: str, task: Task, config: Config, mesh: Mesh) -> float:
  """The cost of a row.

  All but the time come from shapes: nothing is compiled, and of the data at most one batch is read. FLOPs are those
  that a run of the one seed `config.seed` reports. The time is the median of `step_timer.ROUNDS` steps, and of use only
  against another's, measured with it: `match` does so.

  Args:
    kind: "parameters" (trainable ones), "flops" (per token of a training step), "state" (bytes) or "time" (seconds a
      step).
    task: with the row's model.
    config: of the row.
    mesh: of the run.

  Raises:
    Unsupported: for a row that has no such cost.
  """
  _check(kind)
  if kind == "time":
    return step_timer.seconds(step_timer.RunningStep(task, config, mesh).sample())
  if kind == "state":
    size = model_stats.state_bytes(task)
    if size is None:
      raise Unsupported(f"--match=state needs rows that decode, and {_name(config)} does not: leave it out")
    return float(size)
  training = model_stats.training_step(task, config, mesh)
  if kind == "parameters":
    return float(optimizer.count(training.state.params))
  flops = cost.flops_per_token(training.step, training.state, training.batch, training.tokens)
  if flops is None:
    raise Unsupported(f"the FLOPs of {_name(config)} cannot be counted: leave it out, or give --match=parameters")
  return flops


def match(
  kind: str, config: Config, target: float, build: Build, mesh: Mesh, *, baseline: Config | None = None
) -> Budget:
  """Resizes a row's model to a budget.

  Args:
    kind: as of `measure`.
    config: of the row.
    target: what `measure` says of the baseline.
    build: the task of a configuration, its data held already.
    mesh: of the runs.
    baseline: for the time alone, the configuration that the target was measured of. Both steps run in turn, the target
      times the median ratio of their rounds is the value, and a ratio within 1 % is measured a second time and must be
      so over all rounds.

  Returns:
    The budget, with no changes where the row meets it as it is.

  Raises:
    Unsupported: where no sizes come within 1 %, with what was tried and the nearest value.
  """
  _check(kind)
  if (kind == "time") != (baseline is not None):
    problem = "was given none" if baseline is None else "was given one"
    raise ValueError(f"a baseline goes with --match=time and no other, and --match={kind} {problem}")
  if config == baseline:
    return Budget(kind, target, target, {})
  most = MOST_TIMED if kind == "time" else MOST_MODELS
  cost_of, problem_of = _costs(kind, target, build, mesh, baseline), _problems(build, mesh)
  search = model_size.SizeSearch(config, target, cost_of, problem_of, most=most, noisy=kind == "time")
  value = search.value({})
  if search.near(value):
    return Budget(kind, target, value, {})
  changes = None
  try:
    changes = search.solve(*model_size.knobs(config.model, kind))
  except model_size.Exhausted:
    search.left_out.append(f"what would take more than {most} models")
  if changes is None:
    raise _refusal(kind, config, search)
  changed = {field: new for field, new in changes.items() if getattr(config.model, field) != new}
  return Budget(kind, target, search.value(changes), changed, model_size.before(config.model, changed))


def describe(budget: Budget) -> str:
  """A budget in a line, as in `mlp_width 256 -> 243: 51,234 parameters for 51,300`."""
  changes = ", ".join(f"{name} {budget.before.get(name)} -> {new}" for name, new in budget.changed.items())
  return f"{changes or 'nothing changed'}: {_number(budget.value)} {UNITS[budget.match]} for {_number(budget.target)}"


def _costs(kind: str, target: float, build: Build, mesh: Mesh, baseline: Config | None) -> Callable[[Config], float]:
  """The function that measures a configuration; of the time, `target` times its ratio to the baseline's."""
  if baseline is None:
    return lambda config: measure(kind, build(config), config, mesh)
  reference = step_timer.RunningStep(build(baseline), baseline, mesh).sample()

  def seconds(config: Config) -> float:
    step = step_timer.RunningStep(build(config), config, mesh).sample()
    ratios = step_timer.ratios(step, reference)
    if abs(statistics.median(ratios) - 1) <= TOLERANCE:
      ratios += step_timer.ratios(step, reference)
    return target * statistics.median(ratios)

  return seconds


def _problems(build: Build, mesh: Mesh) -> Callable[[Config], str]:
  """The function that says why a configuration cannot be trained, "" if it can; the loss is traced, not compiled."""

  def problem(config: Config) -> str:
    try:
      task = build(config)
      training = model_stats.training_step(task, config, mesh)
      jax.eval_shape(task.loss, training.state.params, training.batch, jax.random.key(0))
    except (ValueError, TypeError) as error:
      lines = str(error).splitlines() or [type(error).__name__]
      return lines[0].split(": ")[0][:160]
    return ""

  return problem


def _refusal(kind: str, config: Config, search: model_size.SizeSearch) -> Unsupported:
  changes, value = search.closest()
  reached = ", ".join(f"{name}={new}" for name, new in changes.items()) or "its own sizes"
  left_out = search.left_out + [f"{name} (it differs between parts)" for name in model_size.uneven_sizes(config.model)]
  parts = [f"{title} {', '.join(names)}" for title, names in (("tried", search.tried), ("left out", left_out)) if names]
  asked = f"--match={kind}: {_name(config)} cannot come within {TOLERANCE:.0%} of {_number(search.target)}"
  got = f"nearest {_number(value)} {UNITS[kind]} with {reached} ({'; '.join(parts)})"
  return Unsupported(f"{asked}: {got}; give the row or the baseline other sizes (SPEC@width=…), or --match=none")


def _check(kind: str) -> None:
  if kind not in UNITS:
    raise ValueError(f"--match={kind} is no budget: give one of {', '.join(UNITS)}, or --match=none")


def _name(config: Config) -> str:
  name, usual = (getattr(model, "architecture", "") for model in (config.model, type(config.model)()))
  return config.model.attention + (f"@architecture={name}" if name != usual else "")


def _number(value: float) -> str:
  return f"{value:,.0f}" if value >= 10 else f"{value:.4g}"
