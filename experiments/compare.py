r"""Compares attention variants on the same tasks, budgets, data order and seeds, and writes a report.

On a laptop (5 minutes on 2 CPU cores; softmax solves recall, a window of 4 does not):
  python -m experiments.compare
One GPU:
  python -m experiments.compare --task=language_modeling --attention='softmax;local(window=64)|softmax;linear' \
    --seeds=5 --steps=20000 --config.model.width=512 --config.model.layers=8 --workdir=runs/language
A pod, the same command on every host:
  python -m experiments.compare --coordinator=auto --config.mesh.fsdp=16 --workdir=/shared/compare

Writes grid.jsonl, results.jsonl, report.md and report.html into the workdir. Started again, it goes on where it was.
A variant that cannot do a task becomes a row that says why. Any --config.* field passes to all rows.
"""

from absl import flags

from attention_lab import cli

TASK = flags.DEFINE_string(
  "task",
  "recall,image_classification:digits,language_modeling:python_docs",
  "Tasks, BINARY[:DATASET], separated by commas.",
)
ATTENTION = flags.DEFINE_string(
  "attention",
  "softmax;local(window=4);linear;pooling",
  "Rows, separated by ';': SPEC, or SPEC@FIELD=VALUE,… of config.model.",
)
SEEDS = flags.DEFINE_integer("seeds", 3, "Runs of each variant; seeds are 0, 1, 2, … and paired over variants.")
STEPS = flags.DEFINE_integer("steps", 0, "Steps of each run; 0 = the default of each task.")
WORKDIR = flags.DEFINE_string("workdir", "runs/compare", "Folder of grid, results and report.")
OVERRIDES: list[str] = []


def main() -> int:
  from attention_lab import mesh as meshes
  from attention_lab.compare import run

  comparison = run.plan(TASK.value, ATTENTION.value, SEEDS.value, STEPS.value, OVERRIDES)
  mesh = meshes.make_mesh(next(iter(comparison.tasks.values())).mesh)
  failed = run.execute(comparison, WORKDIR.value, mesh, lambda line: print(line, flush=True))
  print(f"report: {WORKDIR.value}/report.html")
  return 1 if failed else 0


if __name__ == "__main__":
  cli.run(main, overrides=OVERRIDES)
