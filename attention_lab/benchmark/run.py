"""A whole benchmark: what is not yet in the workdir is measured and added, then the report is written."""

import functools
import importlib.metadata
import os
import pathlib
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attention_lab.benchmark import machine, measure, peers, report
from attention_lab.benchmark.program import Case
from attention_lab.benchmark.settings import Settings, digest
from attention_lab.results import benchmark_rows, provenance
from attention_lab.train import progress

Log = Callable[[str], None]
Row = dict[str, Any]


def execute(settings: Settings, workdir: str | os.PathLike[str], log: Log, explain: bool = False) -> int:
  """Measures the rows that the workdir lacks, and writes them and the report.

  Args:
    settings: what is measured.
    workdir: the folder of `rows.jsonl` and the report.
    log: a function that is given lines of progress.
    explain: True compiles the other implementations of each variant too, and explains each row.

  Returns:
    The number of rows that failed.

  Raises:
    ValueError: before anything is written, for a folder that is a file and for peers that cannot run here.
  """
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={workdir} is a file: give a folder")
  peers.check(settings.names(), measure.platform())
  folder.mkdir(parents=True, exist_ok=True)
  held = benchmark_rows.read(folder / benchmark_rows.FILE)
  run_fields = stamp(settings) | {"session": uuid.uuid4().hex[:8]}
  todo = [
    (case, unmeasured(settings.names(), case, run_fields["digest"], held.rows)) for case in measure.cases(settings)
  ]
  todo = [(case, names) for case, names in todo if names]
  total = len(measure.cases(settings)) * len(settings.names())
  left = sum(len(names) for _, names in todo)
  if left < total:
    log(f"{total - left} of {total} rows are measured already: going on with the others")
  bar = _Rounds(max(1, len(todo) * settings.rounds), log)
  failed = 0
  try:
    for number, (case, names) in enumerate(todo):
      bar.case = f"{case.mode} {case.length}"
      begun = number * settings.rounds
      rows = measure.measure(settings, case, names, functools.partial(bar.after, begun), explain)
      bar.clear()
      for row in rows:
        command = settings.command(row["attention"], case.length, case.mode)
        benchmark_rows.append(folder / benchmark_rows.FILE, run_fields | row | {"command": command})
        failed += row["status"] == "failed"
        log(report.line(row))
  finally:
    if benchmark_rows.read(folder / benchmark_rows.FILE).rows:
      report.write(folder, run_fields["digest"], explain)
  return failed


def stamp(settings: Settings) -> Row:
  """The fields that all rows of a run share: settings, commit, versions, device, cores, and the digest of them."""
  versions = provenance.versions()
  shared = {
    "settings": settings.row_settings(),
    "commit": provenance.commit(),
    "versions": versions,
    "device": provenance.device(),
    "cores": machine.cores(),
  }
  used = {peers.PACKAGES[name][0] for name in settings.peers if name in peers.PACKAGES}
  others = {name: importlib.metadata.version(name) for name in ("torch", "tokamax") if name in used}
  # torch's version is a matter of its own rows, and no part of the digest
  return shared | {"versions": versions | others, "digest": digest(shared)}


def unmeasured(names: Sequence[str], case: Case, mark: str, rows: Iterable[Row]) -> list[str]:
  """The names that have neither been measured nor refused at this mode and length, under the digest `mark`."""
  finished = {benchmark_rows.key(row) for row in rows if row["status"] in ("done", "refused")}
  return [name for name in names if (mark, case.mode, case.length, name) not in finished]


class _Rounds(progress.Bar):
  """A bar of the rounds done."""

  case = ""  # the mode and length being measured

  def after(self, begun: int, done: int) -> None:
    """Draws the bar when `done` rounds of a case are over, of which the first was number `begun`."""
    self.draw(begun + done, lambda now: self._status(begun + done, now))

  def _status(self, step: int, now: float) -> str:
    left = (now - self._begun) / max(step, 1) * (self._steps - step)
    return f"round {step}/{self._steps}  {self.case}  about {progress.duration(left)} left"
