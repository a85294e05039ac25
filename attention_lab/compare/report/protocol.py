"""How the numbers of a table came about: budget, data, software, and how to read them."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from attention_lab.compare.report.tables import Table
from attention_lab.results import formatting, records

READING = (
  "An interval is the 95 % Student-t interval of the mean over seeds; ± 0 says that all seeds gave the same "
  "value. All rows of a table share data, data order and configuration, seed by seed, but for what the protocol names "
  "as tuned, matched or taken at a second chance; rows are compared by the differences of equal seeds.",
  "The best row is picked from the same numbers that judge it, so p-values are corrected by Holm's method over all "
  "pairs of rows of a table, and so are the intervals of differences (in the figure the thin lines): they leave out 0 "
  "exactly where p < 0.05. Rows with p ≥ 0.05 against the best are tied with it: they carry the same words, and no "
  "order among them is claimed. A tie says that these seeds do not tell rows apart, not that the rows are equal.",
  "With a few seeds the noise of one pair of rows is hardly known. Where a table has three rows or more, a pair's "
  "variance is therefore no less than the table's pairs suggest (Smyth 2004, at half its weight), and a difference has "
  "more degrees of freedom than its seeds, the more the more alike the pairs vary.",
  "g is the mean of the paired differences in units of their standard deviation, corrected for few seeds (Hedges). The "
  "power line speaks of a two-sided paired t test at the strictest step of Holm's method, and of noise such as these "
  "seeds showed, which few seeds show only roughly.",
  "Settings are chosen on the validation split alone; the test split is read once, for what was chosen. A second "
  "chance is a run of the same seeds at a third and at three times the learning rate, for each row that was behind on "
  "validation; the best mean there is kept. Where the positive control does not solve its task on every seed, the "
  "table is undecided.",
  "Costs are of the training step: FLOPs per token, step time as a ratio to the named row, peak memory of the compiled "
  "step.",
)
AUTOMATIC = ("warm-up steps", "-1")  # the pair of the automatic warm-up
_HEAD = {
  "steps": "config.steps",
  "batch": "config.batch",
  "learning rate": "config.optimizer.learning_rate",
  "warm-up steps": "config.optimizer.warmup",
  "weight decay": "config.optimizer.weight_decay",
  "layers": "config.model.layers",
  "width": "config.model.width",
  "heads": "config.model.heads",
  "length": "config.data.length",
}


def pairs(table: Table) -> list[tuple[str, str]]:
  """(name, value) pairs of the protocol; a value that differs between rows lists all of them."""
  rows = table.done
  config = settings(table)
  items = [("seeds", ", ".join(map(str, table.seeds)))]
  items += [(name, config.pop(flag)) for name, flag in _HEAD.items() if flag in config]
  items = [(name, "a tenth of all steps" if (name, value) == AUTOMATIC else value) for name, value in items]
  digests = _merged(row.get("digests") for row in rows)
  items += [(f"data, {split}", digest) for split, digest in sorted(digests.items())]
  items += sorted(_merged(row.get("versions") for row in rows).items())
  items += [(name, _all(row.get(name) for row in rows)) for name in ("device", "commit", "config_digest")]
  parameters = [size for entry in table.scored if (size := entry.cost("parameters"))]
  if parameters:
    items.append(("parameters", f"{formatting.thousands(min(parameters))} to {formatting.thousands(max(parameters))}"))
  items += _footing(table) if rows else []
  return [(name.replace("_", " "), value) for name, value in items if value]


def _footing(table: Table) -> list[tuple[str, str]]:
  """What was done for each row beside training it, and what that changed in which row."""
  footing, entries = table.footing, [entry for entry in table.entries if entry.done]
  target = "" if footing.target is None else f", {formatting.count(footing.target)}"
  items = [("budget", f"--match={footing.match}{target}"), ("trials", f"--trials={footing.trials}")]
  items += [
    (f"trials, {_short(flag)}", _dimension(values)) for flag, values in json.loads(footing.search_space).items()
  ]
  for name, chosen in (
    ("changed to match", [(entry, entry.changed) for entry in entries]),
    ("chosen on validation", [(entry, entry.tuning.get("chosen") or {}) for entry in entries]),
  ):
    rows = [
      f"{entry.attention}: {_shown({_short(k): v for k, v in values.items()})}" for entry, values in chosen if values
    ]
    items.append((name, "; ".join(rows)))
  second = [(entry.attention, entry.tuning["second"]) for entry in entries if entry.tuning.get("second")]
  means = [f"{name}: {', '.join(f'{by} {_score(mean)}' for by, mean in runs.items())}" for name, runs in second]
  items.append(("second chance", "; ".join(means) or ("no row was behind" if footing.chances else "off")))
  controls = [entry.attention for entry in table.entries if entry.positive]
  return [*items, ("positive control", ", ".join(controls))]


def _short(flag: str) -> str:
  return flag.removeprefix("config.").removeprefix("model.attention.").removeprefix("optimizer.").replace("_", " ")


def _dimension(values: list[Any]) -> str:
  """A range or a list of choices of the search space."""
  if len(values) == 3 and values[2] in ("log", "linear"):
    return f"{values[0]:g} to {values[1]:g}, {values[2]}"
  return ", ".join(map(_shown, values))


def _score(value: float | None) -> str:
  return "failed" if value is None else formatting.score(value, 4)


def settings(table: Table) -> dict[str, str]:
  """Every field of the configuration that the rows share, but seed and attention; empty when rows do not record it."""
  merged = _merged(row.get("config") for row in table.done)
  return {name: value for name, value in merged.items() if name not in records.CELL_FIELDS}


def _merged(mappings: Iterable[Mapping[str, Any] | None]) -> dict[str, str]:
  items: dict[str, list[Any]] = {}
  for mapping in mappings:
    for name, value in (mapping or {}).items():
      items.setdefault(name, []).append(value)
  return {name: _all(values) for name, values in items.items()}


def _all(values: Iterable[Any]) -> str:
  return "; ".join(dict.fromkeys(_shown(value) for value in values if value not in (None, "")))


def _shown(value: Any) -> str:
  if isinstance(value, Mapping):
    return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
  if isinstance(value, float):
    return f"{value:.6g}"
  return value if isinstance(value, str) else json.dumps(value)
