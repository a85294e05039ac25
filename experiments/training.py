"""What the training binaries share: build the task, train it in its folder, print its numbers."""

import types

from attention_lab import config as configs


def run(task: types.ModuleType, config: configs.Config, workdir: str) -> None:
  """Trains `task` (a module of `attention_lab.tasks`) as `config` says and prints its validation and test metrics.

  A mesh or folder that does not fit is refused before data are read or anything is written.
  """
  from attention_lab import mesh as meshes
  from attention_lab.train import loop
  from attention_lab.train import workdir as workdirs

  mesh = meshes.make_mesh(config.mesh)
  meshes.check(config, mesh)
  if workdir:
    workdirs.check(workdir, task.NAME, config, (config.seed,))
  built = task.build(config, workdir, mesh)
  (result,) = loop.run(built, config, workdir or None, mesh=mesh, experiment=task.NAME)
  for split, metrics in result["metrics"].items():
    print(shown(split, metrics))
  for name, value in built.source.controls.items():
    print(f"control: {name} {value:.4f} {built.primary}")


def shown(split: str, metrics: dict[str, float]) -> str:
  """`test: accuracy 0.9917, loss 0.0312`."""
  return f"{split}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items())
