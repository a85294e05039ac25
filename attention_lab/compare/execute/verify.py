"""Verification of one row: it is run again, and either holds or does not."""

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab import threads
from attention_lab.attention import spec
from attention_lab.config import nearest_hint
from attention_lab.results import provenance, records
from attention_lab.results.records import Row
from attention_lab.tasks import base as tasks
from attention_lab.train import loop

TOLERANCE = 1e-4  # of a metric, relative and absolute: the rounding of other versions or numbers of seeds


def row(workdir: str | os.PathLike[str], name: str, log: Callable[[str], None]) -> int:
  """Trains and tests a finished row of a workdir by its recorded configuration, in a run of its one seed.

  The run has the row's number of threads; on another processor its metrics may differ by the spread of its seeds.

  Args:
    workdir: holds the row in `results.jsonl`.
    name: `TASK ATTENTION SEED`; what a row's name has behind `@` may be left out where no other row is like it.
    log: gets the lines of the run, what is not as it was, and the verdict.

  Returns:
    0 if its metrics hold, else 1.

  Raises:
    ValueError: where the workdir has no such row, or several.
  """
  done, old = _find(pathlib.Path(workdir) / records.RESULTS, name)
  module = tasks.load(old["task"].partition(":")[0])
  config = configs.unflatten(module.Config, old["config"])
  if "threads" in old:
    threads.use(old["threads"])
  mesh = meshes.make_mesh(config.mesh)
  task = module.build(config, "", mesh)
  (new,) = loop.run(task, config, None, mesh=mesh, log=lambda line: log(f"  {line}"))
  elsewhere = old.get("processor") not in (None, threads.processor())
  spreads = _spreads(old, done) if elsewhere else {}
  differing = _differences(old, new | {"digests": dict(task.source.digests)}, spreads)
  for line in [*_notes(old, spreads), *differing]:
    log(line)
  metrics = ", ".join(f"{metric} {value:.4g}" for metric, value in old["metrics"].items() if value is not None)
  within = " within the spread of its seeds" if elsewhere and not differing else ""
  log(f"{_name(old)}: {'does not hold' if differing else 'holds'}{within}: {metrics} then")
  return 1 if differing else 0


def _find(path: pathlib.Path, name: str) -> tuple[list[Row], Row]:
  """(the finished rows of a file, the one that is meant); a row's `@FIELD=VALUE` may be left out if that is enough."""
  done = [line for line in records.distinct(records.read(path).rows) if line["status"] == "done"]
  task, _, rest = name.strip().partition(" ")
  attention, _, seed = rest.rpartition(" ")
  wanted = f"{task} {spec.respelled(attention)} {seed}"
  matching = [line for line in done if _name(line) == wanted]
  short = {_name(line): line for line in done if _name(line | {"attention": line["attention"].split("@")[0]}) == wanted}
  if not matching and len(short) > 1:
    raise ValueError(f"--verify={name} may be any of {len(short)} rows of {path}: give one of {'; '.join(short)}")
  matching = matching or list(short.values())
  if not matching:
    form = f"; give TASK ATTENTION SEED, as in {_name(done[0])!r}" if done else ", which has none"
    raise ValueError(f"--verify={name} is no finished row of {path}{nearest_hint(name, map(_name, done)) or form}")
  return done, matching[-1]


def _name(row: Row) -> str:
  return f"{row['task']} {row['attention']} {row['seed']}"


def _spreads(old: Row, done: Sequence[Row]) -> dict[str, float]:
  """The largest difference of each test metric between two seeds of a row."""
  alike = [line for line in done if line["attention"] == old["attention"] and records.group(line) == records.group(old)]
  seeds = [line["metrics"] for line in alike]
  spreads = {}
  for name in old["metrics"]:
    values = [metrics[name] for metrics in seeds if metrics.get(name) is not None]
    spreads[name] = max(values) - min(values) if values else 0.0
  return spreads


def _differences(old: Row, new: Row, spreads: Mapping[str, float]) -> list[str]:
  """A line for each result that is not as it was; a metric may differ by its spread."""
  lines = []
  now = new["metrics"]["test"]
  for name, value in old["metrics"].items():
    if name not in now or not _close(value, now[name], spreads.get(name, 0.0)):
      lines.append(f"test {name}: {value} then, {now.get(name)} now")
  for name in ("parameters", "flops_per_token", "digests"):
    if old.get(name) != new.get(name):
      lines.append(f"{name}: {old.get(name)} then, {new.get(name)} now")
  return lines


def _close(value: float | None, now: float | None, spread: float) -> bool:
  if value is None or now is None or not math.isfinite(now):
    return (value is None or not math.isfinite(value)) == (now is None or not math.isfinite(now))
  return math.isclose(value, now, rel_tol=TOLERANCE, abs_tol=max(TOLERANCE, spread))


def _notes(old: Row, spreads: Mapping[str, float]) -> list[str]:
  """A line for each circumstance that has changed, or is not known, for the reader to judge by."""
  now = {"commit": provenance.commit(), "device": provenance.device(), "versions": provenance.versions()}
  lines = [f"note: {name} was {old.get(name)} and is {now[name]}" for name in now if old.get(name) != now[name]]
  if spreads:
    shown = ", ".join(f"{name} {spread:.2g}" for name, spread in spreads.items())
    processors = f"{old['processor']} then, {threads.processor()} now"
    lines.append(f"note: another processor ({processors}): it may differ as much as the row's seeds do, {shown}")
  if "threads" not in old and "cpu" in old.get("device", ""):
    used = threads.record("cpu")["threads"]
    lines.append(f"note: the number of the row's threads is not known, which decides its last digits: {used} here")
  return lines
