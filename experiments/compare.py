r"""Compares attention variants on the same tasks, budgets, data order and seeds, and writes a report.

On a laptop (softmax solves recall, a window of 4 does not):
  python -m experiments.compare
One GPU, each row tuned alike and brought to the parameters of the first:
  python -m experiments.compare --task=language_modeling --attention='softmax;local(window=64)|softmax;linear' \
    --match=parameters --trials=8 --seeds=5 --steps=20000 --config.model.width=512 --config.model.layers=8 \
    --workdir=runs/language
A pod, the same command on every host (an array of SLURM jobs, one for each cell: launch/slurm_array.sh):
  python -m experiments.compare --coordinator=auto --config.mesh.fsdp=16 --workdir=/shared/compare

Each row is brought to its budget, tuned on validation by as many trials as every other, and trained with the same
seeds; a row that is behind gets a second chance at a third and at three times its learning rate; then the test split is
touched, once. Writes grid.jsonl, journal.jsonl, results.jsonl, report.md, report.html and figures into the workdir.
Started again, it goes on where it was. A variant that cannot do a task becomes a row that says why. Any --config.*
field passes to all rows.
"""

import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from attention_lab import cli, huge_pages, interrupts
from attention_lab.config import Config

SUITE = flags.DEFINE_string(
  "suite",
  "first",
  "Tasks, rows and rules by name: first, recall, mechanisms, vision, language, long_range; flags beside it win.",
)
SIZE = flags.DEFINE_string("size", "cpu", "Of --suite: cpu, for two cores, or gpu.")
TASK = flags.DEFINE_string("task", "", "Tasks, BINARY[:DATASET], separated by commas; '' = those of --suite.")
ATTENTION = flags.DEFINE_string(
  "attention", "", "Rows, separated by ';': SPEC, or SPEC@FIELD=VALUE,… of config.model; '' = those of --suite."
)
SEEDS = flags.DEFINE_string(
  "seeds", "", "Runs of each row, paired over rows: a number, auto, or '' = 9 where one takes seconds, else 3."
)
HALF_WIDTH = flags.DEFINE_float(
  "half_width", 0.01, "--seeds=auto: half of the corrected interval of a difference to the best, in the metric's unit."
)
MOST_SEEDS = flags.DEFINE_integer("most_seeds", 15, "--seeds=auto: seeds at which it stops.")
STEPS = flags.DEFINE_integer("steps", 0, "Steps of each run; 0 = those of --suite, or else of each task.")
MATCH = flags.DEFINE_string(
  "match", "none", "What rows share with the first within 1 %: parameters, flops, state, time or none."
)
TRIALS = flags.DEFINE_integer(
  "trials", 0, "Settings tried for each row, on validation; 0 = the configuration as it is."
)
SECOND_CHANCE = flags.DEFINE_bool(
  "second_chance", True, "A row that is behind is tried at a third and at three times its learning rate."
)
POSITIVE = flags.DEFINE_string(
  "positive", "", "The row that must solve the task on every seed, else nothing is decided."
)
WORKERS = flags.DEFINE_integer(
  "workers", 0, "Processes of this machine that share the runs; 0 = two on a CPU, else one.", lower_bound=0
)
CELL = flags.DEFINE_integer("cell", 0, "Run only this cell of the grid, from 1, up to its second chance; 0 = all.")
LIST = flags.DEFINE_bool("list", False, "Only print the cells of the grid, a line each.")
COLLECT = flags.DEFINE_bool("collect", False, "Gather what --cell runs left, and finish.")
VERIFY = flags.DEFINE_string(
  "verify", "", "Run a row of --workdir, or of the kept results of --suite, again, 'TASK ATTENTION SEED': does it hold?"
)
HUGE_PAGES = flags.DEFINE_bool(
  "huge_pages", None, "Memory in huge pages that stay: yes, no, or, if not given, where it can be (Linux with glibc)."
)
WORKDIR = flags.DEFINE_string("workdir", "runs/compare", "Folder of grid, results and report.")
OVERRIDES: list[str] = []
KEPT = pathlib.Path(__file__).parent / "results"
KEPT_NAMES = {"first": "default"}  # suite -> folder of its kept results, where the names differ


def main() -> int:
  interrupts.explain(lambda: f"finished runs are kept in {WORKDIR.value}: the same command goes on")
  if HUGE_PAGES.value is not False and not LIST.value:
    huge_pages.restart(required=bool(HUGE_PAGES.value))
  from attention_lab import mesh as meshes
  from attention_lab.compare import report, run
  from attention_lab.compare.execute import verify, worker_pool
  from attention_lab.compare.schedule.protocol import Protocol

  if VERIFY.value:
    return verify.row(_verified_folder(), VERIFY.value, say)
  task_settings = _suite()
  protocol = Protocol(
    match=MATCH.value,
    trials=TRIALS.value,
    lr_retries=SECOND_CHANCE.value,
    positive=POSITIVE.value,
    seeds=SEEDS.value,
    half_width=HALF_WIDTH.value,
    most=MOST_SEEDS.value,
  )
  comparison = run.plan(TASK.value, ATTENTION.value, STEPS.value, OVERRIDES, protocol, task_settings)
  if LIST.value:
    print("\n".join(f"{number} {task} · {row}" for number, (task, row) in enumerate(comparison.cells(), 1)))
    return 0
  mesh = meshes.make_mesh(next(iter(comparison.tasks.values())).mesh)
  workers = WORKERS.value or (1 if CELL.value else worker_pool.default_workers(mesh))
  failed = run.execute(comparison, WORKDIR.value, mesh, say, workers=workers, only=CELL.value, collect=COLLECT.value)
  if not CELL.value:
    print(f"\n{report.summary(WORKDIR.value)}\n\nreport: {WORKDIR.value}/report.html")
  return 1 if failed else 0


def _verified_folder() -> pathlib.Path:
  """The folder of the row that is verified: that of --workdir, or of the suite, or else of the suite's kept results."""
  from attention_lab.compare.schedule import suites
  from attention_lab.results import records

  others = (SIZE, TASK, ATTENTION, SEEDS, STEPS, MATCH, TRIALS, POSITIVE, WORKERS, CELL, LIST, COLLECT)
  asked = [f"--{flag.name}" for flag in others if flag.present] + OVERRIDES
  if asked:
    raise ValueError(f"--verify runs a row as it was recorded: leave {', '.join(asked)} out")
  if WORKDIR.present or not SUITE.present:
    return pathlib.Path(WORKDIR.value)
  suites.load(SUITE.value, SIZE.value)
  folder = pathlib.Path("runs") / SUITE.value
  return folder if (folder / records.RESULTS).exists() else KEPT / KEPT_NAMES.get(SUITE.value, SUITE.value)


def _suite() -> Mapping[str, Sequence[str]]:
  """Sets the flags of the suite that were not given; returns its tasks' settings, none if --task alone names others."""
  from attention_lab.attention import spec
  from attention_lab.compare.schedule import suites

  if SIZE.present and not SUITE.present:
    raise ValueError(f"--size={SIZE.value} is of a suite: give --suite, one of {', '.join(suites.SUITES)}")
  suite = suites.load(SUITE.value, SIZE.value)
  values = {"task": ",".join(suite.tasks), "attention": ";".join(suite.rows), **suite.flags}
  if SUITE.present:
    values["workdir"] = f"runs/{SUITE.value}"
  if ATTENTION.present and values.get("positive") not in spec.rows(ATTENTION.value):
    values.pop("positive", None)  # such rows join a workdir, where the control is marked
  for name, value in values.items():
    if not flags.FLAGS[name].present:
      flags.FLAGS[name].value = value
  return {} if TASK.present and not SUITE.present else suite.tasks


def _task_configs() -> Mapping[str, Config]:
  """The default configuration of each task, by name."""
  from attention_lab.tasks import base

  return {name: base.load(name).Config() for name in base.names()}


def say(line: str) -> None:
  """Prints a line at once."""
  print(line, flush=True)


if __name__ == "__main__":
  cli.run(main, overrides=OVERRIDES, default_threads=1, described=_task_configs)
