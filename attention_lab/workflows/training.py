"""The work of the training binaries: build the task, train it in its folder, print its numbers.

Importing this defines their flags `--workdir`, `--data_report`, `--cross_validate` and `--huge_pages`.
"""

import copy
import pathlib
from typing import Any

from absl import flags

from attention_lab import config as configs
from attention_lab import huge_pages, interrupts

WORKDIR = flags.DEFINE_string("workdir", "", "Folder of checkpoints, logs and tokenizer; empty = keep nothing.")
DATA_REPORT = flags.DEFINE_bool(
  "data_report", False, "Only report on the data: duplicates, overlap of splits, lengths, label counts."
)
CROSS_VALIDATE = flags.DEFINE_bool(
  "cross_validate", False, "Train all --config.data.folds=k folds, in WORKDIR/fold_0, …; the test split is not read."
)
HUGE_PAGES = flags.DEFINE_bool(
  "huge_pages", False, "Memory in huge pages that stay (Linux with glibc, on a CPU): less time for page faults."
)


def run(task: Any, config: configs.Config) -> None:
  """Trains a task, cross-validates it or reports on its data, as the flags say.

  Args:
    task: a module of `attention_lab.tasks`.
    config: its configuration.

  Raises:
    ValueError: what cannot be trained, in one line that names the flags.
  """
  if HUGE_PAGES.value:
    huge_pages.restart()
  if DATA_REPORT.value and CROSS_VALIDATE.value:
    raise ValueError("--data_report trains nothing and --cross_validate trains: give one of them")
  interrupts.explain(_unfinished)
  if DATA_REPORT.value:
    report(task, config)
  elif CROSS_VALIDATE.value:
    cross_validate(task, config, WORKDIR.value)
  else:
    train(task, config, WORKDIR.value)


def _unfinished() -> str:
  """The line that Ctrl-C ends with: the steps that are kept, and how to go on."""
  folder = pathlib.Path(WORKDIR.value)
  if not WORKDIR.value:
    return "nothing is kept, for there is no --workdir"
  steps = [int(path.name) for path in folder.glob("**/checkpoints/*") if path.name.isdigit()]
  state = f"step {max(steps)} is kept in {folder}" if steps else f"{folder} has no checkpoint yet"
  return f"{state}: the same command goes on from there"


def train(task: Any, config: configs.Config, workdir: str) -> None:
  """Trains as `config` says and prints validation and test metrics, and the controls beside them."""
  from attention_lab.train.evaluation import metrics_line

  built, result = _train(task, config, workdir, ("validation", "test"))
  for split, metrics in result["metrics"].items():
    print(metrics_line(split, metrics))
  for name, value in built.source.controls.items():
    print(f"control: {name} {value:.4f} {built.primary}")
  if "lossy" in built.source.metadata:
    print(f"note: {built.source.metadata['lossy']}")


def report(task: Any, config: configs.Config) -> None:
  """Prints the report of `attention_lab.data.report` on the task's data; nothing is written."""
  from attention_lab import mesh as meshes
  from attention_lab.data import report as reports
  from attention_lab.train import pretrained

  workdir = getattr(config, "pretrained", "")
  if workdir:
    pretrained.adopt(config, workdir)
  print(reports.report(task.build(config, "", meshes.make_mesh(config.mesh)).source))


def cross_validate(task: Any, config: configs.Config, workdir: str) -> None:
  """Trains every fold in a folder of its own and prints the primary metric on validation, with its mean.

  The interval is Student's t over folds, which share most of their training data: it is narrower than it would be over
  new data.
  """
  from attention_lab.results import statistics
  from attention_lab.train.evaluation import metrics_line

  folds = config.data.folds
  if folds < 2 or config.data.fold:
    refused = f"--config.data.folds={folds} and --config.data.fold={config.data.fold}"
    raise ValueError(f"--cross_validate trains all folds of --config.data.folds=k, k at least 2: {refused} is not that")
  values = []
  for fold in range(folds):
    fold_config = copy.deepcopy(config)
    fold_config.data.fold = fold
    folder = str(pathlib.Path(workdir) / f"fold_{fold}") if workdir else ""
    built, result = _train(task, fold_config, folder, ("validation",))
    values.append(result["metrics"]["validation"][built.primary])
    print(metrics_line(f"fold {fold}, validation", result["metrics"]["validation"]))
  interval = statistics.interval(values)
  level = f"{statistics.LEVEL:.0%}".replace("%", " %")
  print(f"{folds} folds: validation {built.primary} {interval.mean:.4f} ± {interval.half:.4f} ({level}, t over folds)")


def _train(task: Any, config: configs.Config, workdir: str, splits: tuple[str, ...]) -> tuple[Any, dict[str, Any]]:
  """(the built task, its results); what does not fit is refused before data are read or anything is written."""
  from attention_lab import mesh as meshes
  from attention_lab.train import checks, loop, pretrained
  from attention_lab.train import workdir as workdirs

  mesh = meshes.make_mesh(config.mesh)
  checks.check(config, mesh, (config.seed,))
  source = getattr(config, "pretrained", "")
  fresh = source and pretrained.is_needed(workdir)
  if source:
    print(pretrained.adopt(config, source if fresh else workdir) or f"model as in {source}")
  if workdir:
    workdirs.check(workdir, task.NAME, config, (config.seed,))
  if fresh:
    pretrained.check(config, source)
  folder = workdir or None
  with workdirs.locked(workdir):
    print("preparing the data …", flush=True)
    built = task.build(config, workdir, mesh)
    initial = (lambda: pretrained.initial(config, source, built.layout)) if fresh else None
    (result,) = loop.run(built, config, folder, mesh=mesh, experiment=task.NAME, initial=initial, splits=splits)
  return built, {**result, "metrics": {split: result["metrics"][split] for split in splits}}
