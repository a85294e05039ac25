"""What stands under a table: how its rows were brought to one budget and tuned, and its positive control."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.compare.report import columns
from attention_lab.compare.report.tables import Entry, Table
from attention_lab.compare.schedule import protocol
from attention_lab.results import formatting, pages

UNITS = {"parameters": "parameters", "flops": "FLOPs per token", "state": "bytes of decoding state", "time": "s a step"}
PREFIX = "config."
CHANCES = ("÷3", "×3")


def sentences(table: Table) -> list[str]:
  """Budget, trials, second chances and positive control; names of rows stand in `backticks`; none without a run."""
  if not table.done:
    return []
  return [_budget(table), _tuning(table), _chances(table), *_positive(table)]


def received(table: Table, numbers: Mapping[str, int] = {}) -> pages.Table | None:
  """What each row was given: changed sizes, chosen settings, validation at other learning rates; None for nothing."""
  rows = [entry for entry in table.entries if entry.done]
  flags, places = _flags(table), columns.digits(table)
  told = {
    "budget": [_worth(_recorded(entry)) for entry in rows],
    "changed to match": [_settings(entry.changed) for entry in rows],
    **{_short(flag): [_chosen(entry, flag) for entry in rows] for flag in flags},
    "settings of its own": [_settings(_declared(entry, flags)) for entry in rows],
    **{f"validation\nat {name}": [_second(entry, name, places) for entry in rows] for name in CHANCES},
    "learning rate\nkept": [_rate_taken(entry) for entry in rows],
  }
  told = {title: cells for title, cells in told.items() if any(cells)}
  if not told:
    return None
  cells = zip((f"`{entry.attention}`" for entry in rows), *told.values(), strict=True)
  return pages.Table(
    ["variant", *told], [[cell or "–" for cell in row] for row in cells], 1 + len(told), "given", numbers
  )


def _recorded(entry: Entry) -> Mapping[str, Any]:
  """The budget of a row; its runs have one."""
  return entry.done[0].get("budget") or {}


def _budget(table: Table) -> str:
  rows = [entry for entry in table.entries if entry.done]
  if table.match == "none":
    return "Budget: not matched (`--match=none`)."
  target = table.footing.target
  widest = max(abs(_recorded(entry)["value"] / _recorded(entry)["target"] - 1) for entry in rows)
  changed = sum(bool(entry.changed) for entry in rows)
  how = f"{changed} of {len(rows)} rows had a size changed for it" if changed else "no size had to change"
  amount = f"{_amount(float(target))} {UNITS.get(table.match, table.match)}" if target else ""
  goal = amount or "the baseline's time for a step"
  return f"Budget: every row within {_percent(widest)} of {goal} (`--match={table.match}`); {how}."


def _tuning(table: Table) -> str:
  if not table.trials:
    return "Tuning: none (`--trials=0`); every row has the settings of the protocol."
  limits = ", ".join(f"{_short(flag)} {_limits(values)}" for flag, values in _flags(table).items())
  declared = any(flag not in _flags(table) for entry in table.entries for flag in entry.tuning.get("space") or {})
  rest = ", and the hyper-parameters that a variant declares" if declared else ""
  return (
    f"Tuning: {table.trials} trial{'s' * (table.trials > 1)} for each row (`--trials={table.trials}`), chosen on "
    f"validation with one seed, from {limits}{rest}."
  )


def _chances(table: Table) -> str:
  if not table.chances:
    return "Second chances: off (`--nosecond_chance`)."
  rows = [entry for entry in table.entries if entry.done]
  had = [entry for entry in rows if entry.tuning.get("second")]
  if not had:
    return "Second chances: no row was behind on validation, so none was needed."
  taken = [f"`{entry.attention}` ({entry.tuning['taken']})" for entry in had if entry.tuning.get("taken")]
  taken_by = f"a better one was kept by {formatting.joined(taken)}" if taken else "none was better"
  many = f"{len(had)} of {len(rows)} rows were behind on validation and"
  few = f", judged with {protocol.FEW_SEEDS} seeds" if len(table.seeds) > protocol.FEW_SEEDS else ""
  return f"Second chances: {many} ran again at a third and at three times their learning rate{few}; {taken_by}."


def _positive(table: Table) -> list[str]:
  rows = [entry for entry in table.entries if entry.positive]
  if not rows:
    return ["Positive control: none was named."]
  lines = []
  for entry in rows:
    outcome = "so the table is undecided" if entry in table.broken else "as it must on each"
    seeds = len({row["seed"] for row in entry.rows})
    lines.append(f"Positive control: `{entry.attention}` reached 0.99 on {entry.solved} of {seeds} seeds, {outcome}.")
  return lines


def _flags(table: Table) -> dict[str, Any]:
  """What is tuned in every row within the same limits, by flag."""
  spaces = [entry.tuning.get("space") or {} for entry in table.entries if entry.done]
  first = spaces[0] if spaces and table.trials else {}
  return {flag: limits for flag, limits in first.items() if all(space.get(flag) == limits for space in spaces)}


def _declared(entry: Entry, flags: Mapping[str, Any]) -> dict[str, Any]:
  return {flag: value for flag, value in (entry.tuning.get("chosen") or {}).items() if flag not in flags}


def _chosen(entry: Entry, flag: str) -> str:
  """The chosen value of a flag; of a trial that changes nothing the configured one."""
  known = {**(entry.done[0].get("config") or {}), **(entry.tuning.get("chosen") or {})}
  return _number(known[flag]) if flag in known else ""


def _second(entry: Entry, name: str, places: int) -> str:
  second = entry.tuning.get("second") or {}
  return "" if name not in second else "diverged" if second[name] is None else formatting.score(second[name], places)


def _rate_taken(entry: Entry) -> str:
  return entry.tuning.get("taken") or "its own" if entry.tuning.get("second") else ""


def _worth(budget: Mapping[str, Any]) -> str:
  if not budget:
    return ""
  off = budget["value"] / budget["target"] - 1
  sign = "+" if off >= 0 else formatting.MINUS
  return f"{_amount(float(budget['value']))} ({sign}{abs(100 * off):.2f}\N{NO-BREAK SPACE}%)"


def _settings(chosen: Mapping[str, Any] | None) -> str:
  return ", ".join(f"{_short(name)} {_number(value)}" for name, value in (chosen or {}).items())


def _limits(limits: Sequence[Any]) -> str:
  if len(limits) == 3 and limits[2] in ("log", "linear"):
    return f"{_number(limits[0])} to {_number(limits[1])} ({limits[2]})"
  return f"one of {', '.join(map(_number, limits))}"


def _short(flag: str) -> str:
  return formatting.metric(flag.removeprefix(PREFIX).rpartition(".")[2])


def _number(value: Any) -> str:
  if isinstance(value, bool) or not isinstance(value, int | float):
    return str(value)
  return formatting.count(float(value)) if isinstance(value, int) else f"{value:.3g}"


def _amount(value: float) -> str:
  return formatting.count(value) if value >= 100 else f"{value:.3g}"


def _percent(share: float) -> str:
  """A share in per cent, rounded up to two places."""
  return f"{max(math.ceil(round(share * 1e4, 6)), 1) / 100:g} %"
