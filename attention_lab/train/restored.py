"""A finished run, opened from its folder alone: configuration, task, parameters."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.tasks import base as tasks
from attention_lab.train import state as states
from attention_lab.train import workdir as workdirs
from attention_lab.train.checkpoint import Checkpoints


class Restored(NamedTuple):
  """What a workdir holds; with several seeds every parameter has a leading axis of seeds."""

  task: tasks.Task
  config: configs.Config
  mesh: Mesh
  seeds: tuple[int, ...]
  step: int
  params: Any


def restore(
  workdir: str | os.PathLike[str], *, overrides: Sequence[str] = (), trust: Sequence[str] = (), log: Callable = print
) -> Restored:
  """Opens the newest valid checkpoint of a run, on whatever devices there are now.

  overrides: words `--config.mesh.*=…`; without them the batch is split over all devices. trust: users' packages that
  the run's attention spec may import. Raises ValueError for a folder without a run, an untrusted package or other
  overrides.
  """
  record = workdirs.read(workdir)
  try:
    module = tasks.load(record["experiment"])
    config = configs.from_json(module.Config, json.dumps(record["config"]))
  except (KeyError, ValueError) as error:
    raise ValueError(f"--workdir={workdir}: its config.json is not one of this version's: {error}") from None
  untrusted = spec.packages(config.model.attention) - set(trust)
  if untrusted:
    wanted = ",".join(sorted({*trust, *untrusted}))
    raise ValueError(
      f"'{config.model.attention}' would import code of {', '.join(untrusted)}: allow it by --trust={wanted}"
    )
  config.mesh = configs.MeshConfig()
  for word in overrides:
    if not word.startswith("--config.mesh."):
      raise ValueError(f"{word} would change a run that is done: only --config.mesh.* may differ")
    configs.override(config, word)
  mesh = meshes.make_mesh(config.mesh)
  task = module.build(config, str(workdir), mesh)
  seeds = tuple(record.get("seeds", (config.seed,)))
  with Checkpoints(pathlib.Path(workdir), config.checkpoint, read_only=True) as checkpoints:
    step, params = checkpoints.restore_params(states.abstract_params(task, seeds, mesh), log)
  return Restored(task, config, mesh, seeds, step, params)
