"""A whole benchmark: what is not yet in the workdir is measured and added, then the report is written."""

import os
import pathlib
import uuid
from collections.abc import Callable

from attention_lab.benchmark import measure, peers, record, report
from attention_lab.benchmark.settings import Settings
from attention_lab.train import progress

Log = Callable[[str], None]


def execute(settings: Settings, workdir: str | os.PathLike[str], log: Log, explain: bool = False) -> int:
  """Measures, writes rows and report, and returns how many rows failed.

  ValueError, before anything is written, for a folder that is a file and for peers that cannot run here.
  """
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={workdir} is a file: give a folder")
  peers.check(settings.names(), measure.platform())
  folder.mkdir(parents=True, exist_ok=True)
  held = record.read(folder / record.FILE)
  facts = record.stamp(settings) | {"session": uuid.uuid4().hex[:8]}
  todo = [
    (case, record.missing(settings.names(), case, facts["digest"], held.rows)) for case in measure.cases(settings)
  ]
  todo = [(case, names) for case, names in todo if names]
  whole = len(measure.cases(settings)) * len(settings.names())
  left = sum(len(names) for _, names in todo)
  if left < whole:
    log(f"{whole - left} of {whole} rows are measured already: going on with the others")
  bar = _Rounds(max(1, len(todo) * settings.rounds), log)
  failed = 0
  try:
    for number, (case, names) in enumerate(todo):
      bar.case = f"{case.mode} {case.length}"
      begun = number * settings.rounds
      rows = measure.measure(settings, case, names, lambda done, begun=begun: bar.at(begun + done), explain)
      bar.clear()
      for row in rows:
        command = settings.command(row["attention"], case.length, case.mode)
        record.append(folder / record.FILE, facts | row | {"command": command})
        failed += row["status"] == "failed"
        log(report.line(row))
  finally:
    if record.read(folder / record.FILE).rows:
      report.write(folder, facts["digest"], explain)
  return failed


class _Rounds(progress.Bar):
  """Rounds done, and what is being measured."""

  case = ""

  def at(self, step: int) -> None:
    self.draw(step, lambda now: self._status(step, now))

  def _status(self, step: int, now: float) -> str:
    left = (now - self._begun) / max(step, 1) * (self._steps - step)
    return f"round {step}/{self._steps}  {self.case}  about {progress.duration(left)} left"
