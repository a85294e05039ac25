"""Verification of one row: it is run again, and either holds or does not."""

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

TOLERANCE = 1e-4  # of a metric, relative and absolute: the rounding of other devices, versions or numbers of seeds


def row(workdir: str | os.PathLike[str], name: str, log: Callable[[str], None]) -> int:
  """Trains and tests a finished row of a workdir by its recorded configuration, in a run of its one seed.

  Args:
    workdir: holds the row in `results.jsonl`.
    name: `TASK ATTENTION SEED`.
    log: gets the lines of the run, what is not as it was, and the verdict.

  Returns:
    0 if its metrics hold, else 1.

  Raises:
    ValueError: where the workdir has no such row.
  """
  path = pathlib.Path(workdir) / records.RESULTS
  done = [line for line in records.distinct(records.read(path).rows) if line["status"] == "done"]
  task_name, _, cell = name.strip().partition(" ")
  matching = [line for line in done if _name(line) == f"{task_name} {spec.respelled(cell)}"]
  if not matching:
    form = f"; give TASK ATTENTION SEED, as in {_name(done[0])!r}" if done else ", which has none"
    raise ValueError(f"--verify={name} is no finished row of {path}{nearest_hint(name, map(_name, done)) or form}")
  old = matching[-1]
  module = tasks.load(old["task"].partition(":")[0])
  config = configs.unflatten(module.Config, old["config"])
  mesh = meshes.make_mesh(config.mesh)
  task = module.build(config, "", mesh)
  (new,) = loop.run(task, config, None, mesh=mesh, log=lambda line: log(f"  {line}"))
  differing = _differences(old, new | {"digests": dict(task.source.digests)})
  for line in [*_notes(old), *differing]:
    log(line)
  metrics = ", ".join(f"{metric} {value:.4g}" for metric, value in old["metrics"].items() if value is not None)
  log(f"{_name(old)}: {'does not hold' if differing else 'holds'}: {metrics} then")
  return 1 if differing else 0


def _name(row: Mapping[str, Any]) -> str:
  return f"{row['task']} {row['attention']} {row['seed']}"


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
  """A line for each result that is not as it was."""
  lines = []
  now = new["metrics"]["test"]
  for name, value in old["metrics"].items():
    if name not in now or not _close(value, now[name]):
      lines.append(f"test {name}: {value} then, {now.get(name)} now")
  for name in ("parameters", "flops_per_token", "digests"):
    if old.get(name) != new.get(name):
      lines.append(f"{name}: {old.get(name)} then, {new.get(name)} now")
  return lines


def _close(value: float | None, now: float | None) -> bool:
  if value is None or now is None or not math.isfinite(now):
    return (value is None or not math.isfinite(value)) == (now is None or not math.isfinite(now))
  return math.isclose(value, now, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _notes(old: Mapping[str, Any]) -> list[str]:
  """A line for each circumstance that has changed, for the reader to judge by."""
  now = {"commit": provenance.commit(), "device": provenance.device(), "versions": provenance.versions()}
  return [f"note: {name} was {old.get(name)} and is {now[name]}" for name in now if old.get(name) != now[name]]
