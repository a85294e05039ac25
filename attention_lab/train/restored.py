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
from attention_lab.train.checkpoint import BEST, FOLDER, BrokenCheckpoint, Checkpoints


class Restored(NamedTuple):
  """What a workdir holds; with several seeds every parameter has a leading axis of seeds."""

  task: tasks.Task
  config: configs.Config
  mesh: Mesh
  seeds: tuple[int, ...]
  steps: tuple[int, ...]  # that the parameters are from, for each seed
  params: Any


def restore(
  workdir: str | os.PathLike[str], *, overrides: Sequence[str] = (), trust: Sequence[str] = (), log: Callable = print
) -> Restored:
  """Opens what a run tests, on whatever devices there are now: its newest valid checkpoint, or its best parameters.

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
  steps, params = _parameters(pathlib.Path(workdir), config, states.abstract_params(task, seeds, mesh), len(seeds), log)
  return Restored(task, config, mesh, seeds, steps, params)


def _parameters(
  workdir: pathlib.Path, config: configs.Config, target: Any, seeds: int, log: Callable
) -> tuple[tuple[int, ...], Any]:
  """(the steps they are from, the parameters)."""
  with Checkpoints(workdir, config.checkpoint, name=chosen(config), read_only=True) as checkpoints:
    if chosen(config) == FOLDER:
      step, params = checkpoints.restore_params(target, log)
      return (step,) * seeds, params
    found = checkpoints.restore_chosen(target, log)
  if found is None:
    raise BrokenCheckpoint(f"--workdir={workdir} has no best parameters yet: its run has not been evaluated")
  return tuple(found[1]["steps"]), found[0]


def chosen(config: configs.Config) -> str:
  """The folder of checkpoints that holds what the run tests."""
  return BEST if config.checkpoint.select == "best" else FOLDER
