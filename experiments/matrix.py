"""Trains every variant in every architecture for three steps, or shows which missing capability refuses it.

    python -m experiments.matrix --workdir=runs/matrix                               # all
    python -m experiments.matrix --workdir=runs/mine --attention='softmax;my_pkg.my_file:Mine(k=3)'

Writes matrix.jsonl, a line for each pair, and matrix.md, a table of variants and architectures, into the workdir.
Started again, it goes on where it was: a pair is run once for each commit, and again if it failed. A pair runs if the
variant claims what the architecture demands; what the variant lacks is named by the model's own refusal, which is in
matrix.jsonl. Exit code 0: every pair is as the claims say; 1: one is not, or a loss was not finite; 2: bad usage.
Expected: no pair fails; the sizes are tiny, and all of it takes about nine minutes on one CPU core.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Sequence

from absl import flags

from attention_lab import cli, interrupts
from attention_lab.attention import spec
from attention_lab.certify import battery
from attention_lab.results import provenance, records
from attention_lab.worker_processes import WorkerProcesses
from attention_lab.workflows import matrix
from attention_lab.workflows.architectures import ARCHITECTURES

_WORKDIR = flags.DEFINE_string("workdir", "runs/matrix", "Folder of the cells and of the table.")
_ATTENTION = flags.DEFINE_string(
  "attention", "all", "Variants, separated by ';', or all, which means each as it is certified first."
)
_WORKERS = flags.DEFINE_integer("workers", os.cpu_count() or 1, "Processes that share the variants.", lower_bound=1)


def main() -> int:
  interrupts.explain(lambda: f"finished pairs are kept in {_WORKDIR.value}: the same command goes on")
  rows = _rows(_ATTENTION.value)
  folder = pathlib.Path(_WORKDIR.value)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={_WORKDIR.value} is a file; give a folder")
  folder.mkdir(parents=True, exist_ok=True)
  cells = _finished(folder / "matrix.jsonl")
  pending = {row: [name for name in ARCHITECTURES if (row, name) not in cells] for row in rows}
  for number, row_cells in enumerate(_run(pending), 1):
    for cell in row_cells:
      records.append_line(folder / "matrix.jsonl", dataclasses.asdict(cell) | {"commit": provenance.commit()})
      cells[cell.variant, cell.architecture] = cell
      if cell.status == matrix.FAILED:
        print(f"FAILED {cell.variant} in {cell.architecture}: {cell.reason}", flush=True)
    print(f"{number} of {sum(map(bool, pending.values()))} variants", flush=True)
  return _report(folder / "matrix.md", rows, cells)


def _report(path: pathlib.Path, rows: Sequence[str], cells: dict[tuple[str, str], matrix.Cell]) -> int:
  """Writes the table and returns the exit code."""
  wanted = [cells[row, name] for row in rows for name in ARCHITECTURES]
  command = f"python -m experiments.matrix --attention='{_ATTENTION.value}'"
  about = f"`{command}`, commit {provenance.commit()}, jax {provenance.versions()['jax']}, {provenance.device()}"
  table = matrix.markdown(wanted, rows, list(ARCHITECTURES))
  path.write_text(f"{about}\n\n{table}\n", encoding="utf-8")
  counts = {status: sum(cell.status == status for cell in wanted) for status in matrix.STATUSES}
  print(f"{', '.join(f'{count} {status}' for status, count in counts.items())}: {path}")
  return 1 if counts[matrix.FAILED] else 0


def _rows(attention: str) -> tuple[str, ...]:
  """The specs that are meant; a typing error costs no time."""
  if attention == "all":
    return tuple(case.SPECS[0] for case in battery.cases().values())
  rows = tuple(dict.fromkeys(spec.rows(attention)))
  for row in rows:
    spec.parse(row)
  return rows


def _finished(path: pathlib.Path) -> dict[tuple[str, str], matrix.Cell]:
  """The cells that this commit has run before, without those that failed."""
  names = matrix.Cell.__dataclass_fields__
  rows = [row for row in records.read_lines(path, dict).rows if row.get("commit") == provenance.commit()]
  cells = [matrix.Cell(**{name: row[name] for name in names}) for row in rows if row["status"] != matrix.FAILED]
  return {(cell.variant, cell.architecture): cell for cell in cells}


def _run(pending: dict[str, list[str]]) -> Iterator[list[matrix.Cell]]:
  """The missing cells of each variant, in order."""
  jobs = [(row, names) for row, names in pending.items() if names]
  if min(_WORKERS.value, len(jobs)) < 2:
    yield from map(_row, jobs)
    return
  with WorkerProcesses(_WORKERS.value) as pool:
    yield from pool.map(_row, jobs)


def _row(job: tuple[str, Sequence[str]]) -> list[matrix.Cell]:
  row, names = job
  return [matrix.cell(ARCHITECTURES[name], row) for name in names]


if __name__ == "__main__":
  cli.run(main)
