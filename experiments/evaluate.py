"""Evaluates a trained model: restores what a workdir's run tested and scores it, with no other flag.

That is the newest valid checkpoint, or the best one under --config.checkpoint.select=best.

On a laptop (a few seconds; prints the same numbers as the training run did at its end):
  python -m experiments.evaluate --workdir=runs/recall
One GPU, a run that was trained elsewhere, the validation split only:
  python -m experiments.evaluate --workdir=runs/books --split=validation
A pod, parameters split over 16 devices, the same command on every host:
  python -m experiments.evaluate --coordinator=auto --workdir=/shared/runs/books --config.mesh.fsdp=16
"""

from absl import flags

from attention_lab import cli

WORKDIR = flags.DEFINE_string("workdir", "", "Folder of a training run.")
SPLIT = flags.DEFINE_list("split", ["validation", "test"], "Splits to score.")
TRUST = flags.DEFINE_list("trust", [], "Packages of your own that the run's attention spec may import.")
OVERRIDES: list[str] = []


def main() -> None:
  from attention_lab.train import restored
  from attention_lab.train.evaluation import Evaluator, metrics_line

  run = restored.restore(WORKDIR.value, overrides=OVERRIDES, trust=TRUST.value)
  splits = run.task.source.splits
  for name in SPLIT.value:
    if name not in splits:
      raise ValueError(f"--split={name} is not a split of {run.task.source.name}; it has {', '.join(splits)}")
  noun = "device" if run.mesh.size == 1 else "devices"
  steps = ", ".join(map(str, dict.fromkeys(run.steps)))
  print(f"{run.task.name}, {run.config.model.attention}, step {steps}, on {run.mesh.size} {noun}")
  evaluator = Evaluator(run.task, run.mesh, run.config.batch, run.seeds)
  for name in SPLIT.value:
    for seed, judged in zip(run.seeds, evaluator.judge(run.params, name), strict=True):
      print(metrics_line(name if len(run.seeds) == 1 else f"{name}, seed {seed}", judged.metrics))
  if "lossy" in run.task.source.metadata:
    print(f"note: {run.task.source.metadata['lossy']}")


if __name__ == "__main__":
  cli.run(main, overrides=OVERRIDES)
