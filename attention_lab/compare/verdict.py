"""What a table says, in sentences; names of variants stand in `backticks`."""

from collections.abc import Sequence

from attention_lab.compare import numerals, statistics
from attention_lab.compare.tables import Entry, Table

SHOWN = 3


def sentences(table: Table) -> list[str]:
  """The verdict of one table: what is best and by how much, what is tied, the controls, and what could not run."""
  found = [*_order(table), *_controls(table), *_solved(table)]
  found += [f"`{entry.attention}` is refused: {_stop(entry.reasons[0])}" for entry in _with(table, "refused")]
  found += [f"`{entry.attention}` failed: {_stop(entry.reasons[0])}" for entry in _with(table, "failed")]
  found += [
    f"`{entry.attention}` diverged: a seed has no finite score, so it has no mean."
    for entry in _with(table, "diverged")
  ]
  partial = [entry for entry in table.scored if entry.reasons]
  return found + [
    f"`{entry.attention}` lacks seeds, its other runs failed: {_stop(entry.reasons[0])}" for entry in partial
  ]


def caution(table: Table) -> str:
  """How far the seeds of a table carry."""
  seeds = min((entry.interval.n for entry in table.scored), default=0)
  if seeds == 0:
    return "No finished run, so nothing is shown."
  if seeds == 1:
    return "1 seed: no interval and no test. The order of the rows is not evidence; run with --seeds=3 or more."
  return (
    f"{seeds} seeds; a permutation test could at best reach p = {statistics.smallest_p(seeds):.2g}. The intervals "
    f"and p-values are Student's t with {seeds - 1} degree{'s' * (seeds > 2)} of freedom and rest on noise that is "
    "roughly normal."
  )


def standing(entry: Entry, table: Table) -> str:
  """The word of a row: the rows that cannot be told from the best all carry the same one."""
  if entry.standing == "best" and any(other.standing == "tied" for other in table.entries):
    return "tied best"
  if entry.standing == "best" and all(other.standing == "undecided" for other in table.scored if other is not entry):
    return "undecided"
  return {"tied": "tied best", "alone": "only row"}.get(entry.standing, entry.standing)


def _order(table: Table) -> list[str]:
  if not table.scored:
    return ["No variant finished this task."]
  best, *others = table.scored
  digits = numerals.decimals(entry.interval for entry in table.scored)
  mean = f"{numerals.plus_minus(best.interval, digits)} {numerals.metric(table.primary)}"
  if not others:
    return [f"`{best.attention}` is the only variant with a score: {mean}."]
  if best.interval.half is None:
    mean = f"{numerals.score(best.interval.mean, digits)} {numerals.metric(table.primary)}"
    return [f"`{best.attention}` has the best score, {mean}, but one seed says nothing about the order."]
  tied, behind, open_ = (
    [entry for entry in others if entry.standing == standing_] for standing_ in ("tied", "behind", "undecided")
  )
  found = [f"`{best.attention}` is best: {mean}."]
  if tied:
    names = numerals.joined(f"`{entry.attention}`" for entry in (best, *tied))
    extreme = "highest" if table.higher_is_better else "lowest"
    found = [f"{names} are tied for best; the {extreme} mean is {mean}."]
    found += [f"These seeds do not tell them apart: {_gaps(tied, digits, ' trails by')}."]
  if behind:
    found += [f"`{best.attention}` is ahead of {_gaps(behind, digits, ' by')}."]
  return found + [f"`{entry.attention}` shares too few seeds with `{best.attention}` to be judged." for entry in open_]


def _gaps(entries: Sequence[Entry], digits: int, verb: str) -> str:
  shown = [
    f"`{entry.attention}`{verb} {numerals.between(entry.difference.interval, digits)}"
    f" (Holm {numerals.p_value(entry.difference.p_holm)})"
    for entry in entries[:SHOWN]
  ]
  return numerals.joined([*shown, *([f"{len(entries) - SHOWN} more"] if len(entries) > SHOWN else [])])


def _controls(table: Table) -> list[str]:
  if not table.scored or not table.references:
    return []
  best = table.scored[0]
  digits = numerals.decimals(entry.interval for entry in table.scored)
  parts = [
    f"{_relation(best.interval, value, table.higher_is_better)} {name} ({numerals.score(value, digits)})"
    for name, value in table.references.items()
  ]
  return [f"`{best.attention}` is {numerals.joined(parts)}."]


def _relation(interval: statistics.Interval, value: float, higher: bool) -> str:
  if interval.low <= value <= interval.high and interval.half is not None:
    return "not to be told from"
  return "better than" if (interval.mean > value) == higher else "worse than"


def _solved(table: Table) -> list[str]:
  if not table.jumps:
    return []
  shares = [
    f"`{entry.attention}` on {entry.solved} of {len(entry.scores)} seeds" for entry in table.scored if entry.solved
  ]
  return [f"Solved (≥ 0.99) by {numerals.joined(shares)}."]


def _with(table: Table, standing_: str) -> list[Entry]:
  return [entry for entry in table.entries if entry.standing == standing_]


def _stop(text: str) -> str:
  return text if text.endswith((".", "!", "?")) else text + "."
