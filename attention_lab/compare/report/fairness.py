"""What the rows of one table must share beside configuration and data, and the refusal of those that do not."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from attention_lab.compare.schedule import search_space
from attention_lab.results import records

TOLERANCE = 0.01  # of a budget
MEASURED = {"parameters": "parameters", "state": "state_bytes"}  # match -> the row's own count of it
_SAME = {
  "match": "--match",
  "target": "budget",
  "trials": "--trials",
  "search_space": "search space",
  "chances": "--second_chance",
}

Row = records.Row


class Footing(NamedTuple):
  """What was done for a row beside training it; a row that records nothing had no budget, trial or second chance."""

  match: str = "none"
  target: float | None = None  # of the budget; None for a time, which is a ratio to the baseline measured beside it
  trials: int = 0
  search_space: str = "{}"  # JSON of what all rows share of the search space
  chances: bool = False


def footing(row: Mapping[str, Any]) -> Footing:
  """The footing that a done row records."""
  budget, tuning = row.get("budget") or {}, row.get("tuning") or {}
  shared = {
    flag: values for flag, values in (tuning.get("space") or {}).items() if not flag.startswith(search_space.VARIANT)
  }
  trials = tuning.get("trials") or 0
  return Footing(
    budget.get("match", "none"),
    None if budget.get("match") == "time" else budget.get("target"),
    trials,
    json.dumps(shared, sort_keys=True) if trials else "{}",
    bool(tuning.get("chances")),
  )


def check(rows: Iterable[Row]) -> None:
  """Raises ValueError, in one line naming rows and the fix, where done rows of one table were not treated alike.

  Alike are: the budget, which each row meets within 1 %, the trials and what they share of the search space, the
  second chances, and one tested setting for all seeds of a row. Validation, test and training data must differ, and a
  positive control needs a score in which 1 is solved. Rows may have fewer seeds than others: the verdict says so.
  """
  groups: dict[tuple[Any, ...], list[Row]] = {}
  for row in rows:
    if row["status"] == "done":
      groups.setdefault(records.group(row), []).append(row)
  for group in groups.values():
    _check_data(group[0])
    _check_footing(group)
    for row in group:
      _check_budget(row)
      _check_control(row)
    _check_settings(group)


def _check_data(row: Row) -> None:
  digests = row.get("digests") or {}
  names = [name for name in ("train", "validation", "test") if digests.get(name)]
  for i, first in enumerate(names):
    for second in names[i + 1 :]:
      if digests[first] == digests[second]:
        same = f"{row['task']}: {first} and {second} are the same data (digest {digests[first]})"
        raise ValueError(f"{same}: what is chosen on one may not be scored on the other; give splits that differ")


def _check_footing(rows: Sequence[Row]) -> None:
  first, start = rows[0], footing(rows[0])
  for row in rows[1:]:
    for (name, expected), other in zip(start._asdict().items(), footing(row), strict=True):
      if expected != other:
        what = f"`{first['attention']}` has {_SAME[name]} {_shown(expected)} and `{row['attention']}` {_shown(other)}"
        fix = f"run one of them again with the other's {_SAME[name]}, or give each its own --workdir"
        raise ValueError(f"{row['task']}: {what}, and one table treats all rows alike: {fix}")


def _check_budget(row: Row) -> None:
  budget = row.get("budget")
  if not budget:
    return
  match, target = budget["match"], budget["target"]
  for value in (budget["value"], row.get(MEASURED.get(match, ""))):
    if value is not None and not abs(value - target) <= TOLERANCE * target:
      what = f"{row['task']}: `{row['attention']}` has {value:,.6g} {match} where the budget is {target:,.6g}"
      raise ValueError(f"{what} ± {TOLERANCE:.0%}: size it again with --match={match}, or compare with --match=none")


def _check_control(row: Row) -> None:
  if row.get("positive") and not row["higher_is_better"]:
    what = f"{row['task']}: `{row['attention']}` is a positive control, and {row['primary']} is better when lower"
    raise ValueError(f"{what}: only a score in which 1 is solved has one; leave --positive out")


def _check_settings(rows: Sequence[Row]) -> None:
  """All seeds of a row were tested at one setting, so that their mean is the mean of one thing."""
  held: dict[str, tuple[Any, Row]] = {}
  for row in rows:
    tuning, budget = row.get("tuning") or {}, row.get("budget") or {}
    setting = {**(tuning.get("chosen") or {}), **(budget.get("changed") or {})}
    expected, first = held.setdefault(row["attention"], (setting, row))
    if expected != setting:
      seeds = f"seeds {first['seed']} and {row['seed']}"
      what = f"{row['task']}: {seeds} of `{row['attention']}` were tested at {_shown(expected)} and {_shown(setting)}"
      raise ValueError(f"{what}, and a mean needs one setting: run all seeds of the row together, in a new --workdir")


def _shown(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{name.removeprefix('config.')}={item}" for name, item in sorted(value.items())) or "no change"
  return value if isinstance(value, str) else json.dumps(value)
