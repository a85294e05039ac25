r"""Makes every figure and page of a comparison, a benchmark or a training run again, from its rows.

A folder of your own; its pages are report.html and report.md, its figures lie beside them:
  python -m experiments.report --workdir=runs/compare
  python -m experiments.report --workdir=runs/recall --formats=svg,png,pdf
Results that the repository keeps, one or all of them; with recall, the picture of the README too:
  python -m experiments.report --kept=recall
  python -m experiments.report --kept=all
"""

import json
import pathlib
from collections.abc import Callable, Sequence

from absl import flags

from attention_lab import cli
from attention_lab import config as configs

KEPT = pathlib.Path(__file__).parent / "results"
FRONTIER = KEPT / "recall" / "frontier.png"  # the picture of the README
FRONTIER_FIGURE = "figures/recall-decoding-state"

_WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a comparison, a benchmark or a training run.")
_KEPT = flags.DEFINE_string("kept", "", "Results in experiments/results: a folder's name, or all.")
_FORMATS = flags.DEFINE_list("formats", ["svg"], "Formats of the figures' files: svg, png, pdf.")

Writer = Callable[[pathlib.Path, Sequence[str]], list[pathlib.Path]]


def main() -> int:
  from attention_lab.results import figure_files

  for kind in _FORMATS.value:
    if kind not in figure_files.FORMATS:
      raise ValueError(
        f"--formats={','.join(_FORMATS.value)}: {kind!r} is not one of {', '.join(figure_files.FORMATS)}"
      )
  if bool(_WORKDIR.value) == bool(_KEPT.value):
    raise ValueError("give either --workdir=DIR, or --kept=NAME for results of the repository")
  for folder in [pathlib.Path(_WORKDIR.value)] if _WORKDIR.value else _folders(_KEPT.value):
    paths = _writer(folder)(folder, _FORMATS.value)
    print(f"{folder}: {len(paths)} files, {folder}/report.html", flush=True)
    if folder == FRONTIER.parent:
      _draw_frontier()
  return 0


def _folders(name: str) -> list[pathlib.Path]:
  """The folders of kept results that have a page, by name or all."""
  folders = {str(path.parent.relative_to(KEPT)): path.parent for path in sorted(KEPT.rglob("report.md"))}
  if name == "all":
    return list(folders.values())
  if name not in folders:
    hint = configs.nearest_hint(name, folders)
    raise ValueError(f"--kept={name} is none of the kept results{hint}: give one of {', '.join(folders)}, or all")
  return [folders[name]]


def _draw_frontier() -> None:
  """Draws the picture of the README: quality against decoding state, a small plot for each family of recall's rows."""
  from attention_lab.compare import report as comparisons
  from attention_lab.results import figure_files, pages

  drawn = {picture.file: picture.figure for picture in pages.pictures(comparisons.content(FRONTIER.parent).blocks)}
  FRONTIER.write_bytes(figure_files.render(drawn[FRONTIER_FIGURE], "png"))
  print(FRONTIER, flush=True)


def _writer(folder: pathlib.Path) -> Writer:
  """What makes the page of a folder, by the rows that lie in it; ValueError where there are none."""
  from attention_lab.benchmark import report as benchmarks
  from attention_lab.benchmark.models import report as models
  from attention_lab.compare import report as comparisons
  from attention_lab.workflows import training_report

  if (folder / "results.jsonl").exists():
    return lambda path, formats: comparisons.write(path, formats=formats)
  if (folder / "rows.jsonl").exists():
    try:
      first = json.loads((folder / "rows.jsonl").read_bytes().partition(b"\n")[0])
    except ValueError:
      raise ValueError(f"{folder / 'rows.jsonl'}: line 1 is no row; mend it, or remove the line") from None
    return models.write if "model" in first else lambda path, formats: benchmarks.write(path, formats=formats)
  if (folder / "config.json").exists():
    return training_report.write
  raise ValueError(
    f"--workdir={folder} holds no run: give the folder of a comparison (results.jsonl), of a benchmark (rows.jsonl) "
    "or of a training run (config.json)"
  )


if __name__ == "__main__":
  cli.run(main)
