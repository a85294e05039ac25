"""The page of a training run: its curves, final metrics, diagnosis, configuration and command, from its workdir."""

import json
import math
import os
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab import config as configs
from attention_lab.results import figures, formatting, pages
from attention_lab.results.figure_labels import Line
from attention_lab.results.figures import Axis
from attention_lab.results.pages import Block, Fold, Listing, Prose, Section
from attention_lab.tasks import base as tasks
from attention_lab.train import diagnosis, metrics_writer
from attention_lab.train import workdir as workdirs

NO_METRIC = ("seed", "step", "split")
DIAGNOSED = (
  f"A layer is named where, over {diagnosis.WINDOW} recorded steps, its median gradient norm is less than "
  f"{1 / diagnosis.FACTOR:.0e} or more than {diagnosis.FACTOR:.0e} of the other parts'."
)

Row = Mapping[str, Any]


def write(workdir: str | os.PathLike[str], formats: Sequence[str] = ("svg",)) -> list[pathlib.Path]:
  """Writes report.md, report.html and the figures of a run, also of one that is not finished.

  Args:
    workdir: the folder of the run.
    formats: of the figures' files, `svg`, `png` or `pdf`.

  Returns:
    The paths of the pages, then of the figures.

  Raises:
    ValueError: the folder is not that of a training run.

  """
  folder = pathlib.Path(workdir)
  record, results = workdirs.read(folder), workdirs.results(folder) or []
  rows = metrics_writer.read(folder / metrics_writer.FILE)
  seeds = record.get("seeds") or [record["config"].get("seed", 0)]
  title = f"{formatting.metric(record['experiment'])}: {record['config'].get('model', {}).get('attention', '')}"
  blocks: list[Block] = [Prose([_outcome(record, results, rows)], "lead"), *_curves(rows, results, seeds)]
  blocks += [_final(results)] if results else []
  measured = any(name.startswith(diagnosis.PREFIX) for row in rows for name in row)
  quiet = "No layer's gradients vanish or explode." if measured else "No gradient norms are recorded in this folder."
  lines = _diagnosis(rows, seeds) or [quiet]
  blocks.append(Section("Diagnosis", [Prose(lines), Prose([DIAGNOSED], "hint")]))
  fields = [[f"`{name}`", json.dumps(value)] for name, value in _flat(record["config"], "config.").items()]
  blocks.append(Listing("The command of this run", [("It trains the same again, in another folder", command(record))]))
  blocks.append(Fold("Every field of the configuration", [pages.Table(["field", "value"], fields, 2)]))
  lead = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))} · {record['config'].get('steps')} steps"
  return pages.write(pages.Page(title, lead, blocks), folder, formats)


def command(record: Mapping[str, Any]) -> str:
  """The command line of a run's `config.json`: every field that differs from the binary's default."""
  default = configs.flatten(tasks.load(record["experiment"]).Config())
  changed = {
    name: value for name, value in _flat(record["config"], "config.").items() if value != default.get(name, value)
  }
  arguments = [f"--{name}={value}" for name, value in changed.items()]
  return " ".join(["python", "-m", f"experiments.{record['experiment']}", *map(shlex.quote, arguments)])


def _outcome(record: Mapping[str, Any], results: Sequence[Row], rows: Sequence[Row]) -> str:
  if not results:
    last = max((row["step"] for row in rows), default=0)
    return (
      f"Unfinished: {last} of {record['config'].get('steps')} steps are recorded; the same command goes on with them."
    )
  scores = []
  for split, metrics in results[0]["metrics"].items():
    name = next(iter(metrics))
    values = [seed["metrics"][split][name] for seed in results]
    known = [value for value in values if value is not None]
    mean = formatting.score(sum(known) / len(known) if len(known) == len(values) else None, 4)
    scores.append(f"{mean} {formatting.metric(name)} on the {split} split")
  mean_of = f", mean of {len(results)} seeds" if len(results) > 1 else ""
  return f"Trained to {formatting.joined(scores)}{mean_of}."


def _curves(rows: Sequence[Row], results: Sequence[Row], seeds: Sequence[int]) -> list[Block]:
  """Training loss and validation metric against step, a line for each seed."""
  validation = [row for row in rows if row["split"] == "validation"]
  metric = next((name for row in validation for name in row if name not in NO_METRIC), "validation metric")
  if results and not validation:
    metric = next(iter(results[0]["metrics"].get("validation", {"validation metric": 0})))
  drawn: list[Block] = []
  for title, name, split, caption in (
    ("Training loss", "loss", "train", "Of the batches that were recorded."),
    (f"Validation {formatting.metric(metric)}", metric, "validation", "Of the whole validation split."),
  ):
    lines = []
    for number, seed in enumerate(seeds):
      of_seed = [row for row in rows if row["split"] == split and row.get("seed", seed) == seed]
      points = [(row["step"], row.get(name)) for row in of_seed]
      if not points and split == "validation" and results:
        points = next((result["curve"] for result in results if result.get("seed", seed) == seed), [])
      finite = [(float(step), float(value)) for step, value in points if value is not None and math.isfinite(value)]
      if len(finite) > 1:
        lines.append(Line(f"seed {seed}", [(step, value, value, value) for step, value in finite], number))
    if lines:
      drawn.append(_curve(title, caption, lines, split))
  return drawn


def _curve(title: str, caption: str, lines: Sequence[Line], split: str) -> pages.Picture:
  values = [point[2] for line in lines for point in line.points[len(line.points) // 50 :]]
  last = max(line.points[-1][0] for line in lines)
  x = Axis("optimizer step", (0.0, 1.02 * last), text=formatting.count)
  figure = figures.plot(lines, x, Axis(title.lower(), figures.padded(values)), bands=True)
  alt = f"{title} against step, ending at {formatting.joined(f'{line.points[-1][2]:.4g}' for line in lines)}"
  return pages.Picture(title, caption, alt, f"figures/{split}", figure)


def _final(results: Sequence[Row]) -> Section:
  """The metrics of every split and seed, and what the run cost."""
  splits = list(results[0]["metrics"])
  names = list(dict.fromkeys(name for result in results for metrics in result["metrics"].values() for name in metrics))
  rows = [
    [f"seed {result.get('seed', 0)}", split, *(_number(result["metrics"][split].get(name)) for name in names)]
    for result in results
    for split in splits
  ]
  first = results[0]
  costs = [
    ("parameters", formatting.thousands(first.get("parameters"))),
    ("FLOPs per token", formatting.thousands(first.get("flops_per_token"))),
    ("seconds a step", _number(first.get("step_time"))),
    ("peak memory, MiB", formatting.mebibytes(first.get("peak_bytes"))),
    ("seconds of compiling", _number(first.get("compile_time"))),
    ("skipped steps", _number(first.get("skipped"))),
    ("step that was tested", _number(first.get("selected"))),
  ]
  head = ["run", "split", *map(formatting.metric, names)]
  return Section("Final metrics", [pages.Table(head, rows, 2), pages.Pairs([cost for cost in costs if cost[1] != "–"])])


def _diagnosis(rows: Sequence[Row], seeds: Sequence[int]) -> list[str]:
  """A line for each layer whose gradients vanish or explode."""
  watch, lines = diagnosis.Diagnosis(seeds), []
  steps: dict[int, list[Row]] = {}
  for row in rows:
    if row["split"] == "train":
      steps.setdefault(row["step"], []).append(row)
  for step, group in steps.items():
    if len(group) == len(seeds):
      norms = [
        {n: v if v is not None else math.nan for n, v in row.items() if n.startswith(diagnosis.PREFIX)} for row in group
      ]
      lines += watch.record(step, norms)
  return lines


def _number(value: float | None) -> str:
  return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else formatting.count(value)


def _flat(tree: Mapping[str, Any], prefix: str) -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for name, value in tree.items():
    flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
  return flat
