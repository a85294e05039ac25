"""A run that is opened from its folder alone: configuration, task, parameters."""

import json
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jax.sharding import Mesh

from attention_lab import config as configs
from attention_lab import mesh as meshes
from attention_lab.attention import spec
from attention_lab.data.tokenizer import TOKENIZER_FILE
from attention_lab.tasks import base as tasks
from attention_lab.train import state as states
from attention_lab.train import workdir as workdirs
from attention_lab.train.checkpoint import BEST, FOLDER, BrokenCheckpoint, Checkpoints


class RestoredRun(NamedTuple):
  """The contents of a workdir; with several seeds every parameter has a leading axis of seeds."""

  task: tasks.Task
  config: configs.Config
  mesh: Mesh
  seeds: tuple[int, ...]
  steps: tuple[int, ...]  # after which the parameters were saved, for each seed
  params: Any


def restore(
  workdir: str | os.PathLike[str], *, overrides: Sequence[str] = (), trust: Sequence[str] = (), log: Callable = print
) -> RestoredRun:
  """Opens what a run tests, on whatever devices there are now: its newest valid checkpoint, or its best parameters.

  Args:
    workdir: the run's folder.
    overrides: flags `--config.mesh.*=…`; without them the batch is split over all devices.
    trust: users' packages that the run's attention spec may import.
    log: prints a whole line.

  Raises:
    ValueError: a folder without a run, an untrusted package or other overrides.
    BrokenCheckpoint: no checkpoint can be restored.

  """
  record, module, config = read_config(workdir)
  untrusted = spec.packages(config.model.attention) - set(trust)
  if untrusted:
    wanted = ",".join(sorted({*trust, *untrusted}))
    raise ValueError(
      f"'{config.model.attention}' would import code of {', '.join(untrusted)}: allow it by --trust={wanted}"
    )
  if getattr(config.data, "tokenizer", "") and not (pathlib.Path(workdir) / TOKENIZER_FILE).exists():
    raise ValueError(f"--workdir={workdir} has no {TOKENIZER_FILE}, which its run wrote: restore it")
  config.mesh = configs.MeshConfig()
  for flag in overrides:
    if not flag.startswith("--config.mesh."):
      raise ValueError(f"{flag} would change a run that is done: only --config.mesh.* may differ")
    configs.override(config, flag)
  mesh = meshes.make_mesh(config.mesh)
  task = module.build(config, str(workdir), mesh)
  seeds = tuple(record.get("seeds", (config.seed,)))
  steps, params = _parameters(pathlib.Path(workdir), config, states.abstract_params(task, seeds, mesh), len(seeds), log)
  return RestoredRun(task, config, mesh, seeds, steps, params)


def read_config(workdir: str | os.PathLike[str], flag: str = "--workdir") -> tuple[dict[str, Any], Any, configs.Config]:
  """(the record in `config.json`, the module of the run's task, its configuration); `flag` named the folder."""
  record = workdirs.read(workdir, flag)
  try:
    module = tasks.load(record["experiment"])
    return record, module, configs.from_json(module.Config, json.dumps(record["config"]))
  except (KeyError, ValueError) as error:
    raise ValueError(f"{flag}={workdir}: its config.json is not one of this version's: {error}") from None


def _parameters(
  workdir: pathlib.Path, config: configs.Config, target: Any, seeds: int, log: Callable
) -> tuple[tuple[int, ...], Any]:
  """(the steps they are from, the parameters)."""
  with Checkpoints(workdir, config.checkpoint, name=selected_folder(config), read_only=True) as checkpoints:
    if selected_folder(config) == FOLDER:
      step, params = checkpoints.restore_params(target, log)
      return (step,) * seeds, params
    best = checkpoints.restore_chosen(target, log)
  if best is None:
    raise BrokenCheckpoint(f"--workdir={workdir} has no best parameters yet: its run has not been evaluated")
  return tuple(best[1]["steps"]), best[0]


def selected_folder(config: configs.Config) -> str:
  """The folder of checkpoints that holds the parameters that the run tests."""
  return BEST if config.checkpoint.select == "best" else FOLDER
