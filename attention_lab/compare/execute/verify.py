"""Runs one row of a ledger again and says whether it holds."""

import math
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.config import nearest_hint
from attention_lab.results import provenance, records
from attention_lab.tasks import base as tasks
from attention_lab.train import loop

RESULTS = "results.jsonl"
RELATIVE = 1e-4  # of a metric: what the rounding of other devices, versions or numbers of seeds may come to


def row(workdir: str | os.PathLike[str], name: str, log: Callable[[str], None]) -> int:
  """Trains and tests the row `TASK ATTENTION SEED` by its recorded configuration; 0 if its metrics hold, else 1.

  The run is of one seed, whatever the row's was. ValueError where the ledger has no such row.
  """
  path = pathlib.Path(workdir) / RESULTS
  done = [one for one in records.distinct(records.read(path).rows) if one["status"] == "done"]
  task_name, _, cell = name.strip().partition(" ")
  found = [one for one in done if _name(one) == f"{task_name} {spec.respelled(cell)}"]
  if not found:
    form = f"; give TASK ATTENTION SEED, as in {_name(done[0])!r}" if done else ", which has none"
    raise ValueError(f"--verify={name} is no finished row of {path}{nearest_hint(name, map(_name, done)) or form}")
  kept = found[-1]
  module = tasks.load(kept["task"].partition(":")[0])
  config = configs.unflatten(module.Config, kept["config"])
  mesh = meshes.make_mesh(config.mesh)
  task = module.build(config, "", mesh)
  (again,) = loop.run(task, config, None, mesh=mesh, log=lambda line: log(f"  {line}"))
  differing = _unequal(kept, again | {"digests": dict(task.source.digests)})
  for line in [*_circumstances(kept), *differing]:
    log(line)
  log(f"{_name(kept)}: {'does not hold' if differing else 'holds'}: {_shown(kept['metrics'])} then")
  return 1 if differing else 0


def _name(row: Mapping[str, Any]) -> str:
  return f"{row['task']} {row['attention']} {row['seed']}"


def _unequal(kept: Mapping[str, Any], again: Mapping[str, Any]) -> list[str]:
  """What is not as it was, a line each."""
  lines = []
  now = again["metrics"]["test"]
  for name, value in kept["metrics"].items():
    if name not in now or not _close(value, now[name]):
      lines.append(f"test {name}: {value} then, {now.get(name)} now")
  for name in ("parameters", "flops_per_token", "digests"):
    if kept.get(name) != again.get(name):
      lines.append(f"{name}: {kept.get(name)} then, {again.get(name)} now")
  return lines


def _close(value: float | None, now: float | None) -> bool:
  if value is None or now is None or not math.isfinite(now):
    return (value is None or not math.isfinite(value)) == (now is None or not math.isfinite(now))
  return math.isclose(value, now, rel_tol=RELATIVE, abs_tol=RELATIVE)


def _circumstances(kept: Mapping[str, Any]) -> list[str]:
  """What else is another than it was, for the reader to judge by."""
  lines = []
  for name, now in (
    ("commit", provenance.commit()),
    ("device", provenance.device()),
    ("versions", provenance.versions()),
  ):
    if kept.get(name) != now:
      lines.append(f"note: {name} was {kept.get(name)} and is {now}")
  return lines


def _shown(metrics: Mapping[str, float]) -> str:
  return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if value is not None)
