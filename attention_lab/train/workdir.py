"""A run's folder: `config.json` holds its experiment and configuration, `final.json` its results.

A folder belongs to one run: another configuration is refused with the fields that differ, but for those that change
nothing of what is trained and tested (evaluations choose what is tested under `config.checkpoint.select=best`).
"""

import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax

from attention_lab import config as configs
from attention_lab.attention import spec

CONFIG, FINAL = "config.json", "final.json"
ATTENTION = "config.model.attention"
# Fields, or beginnings of their names, that change nothing of what is trained.
MAY_DIFFER = ("config.mesh.", "config.checkpoint.every", "config.checkpoint.keep", "config.evaluate_every")


def check(workdir: str | os.PathLike[str], experiment: str, config: configs.Config, seeds: Sequence[int]) -> None:
  """Raises ValueError if the folder holds another run: other experiment, seeds or configuration. Writes nothing."""
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={workdir} is a file; give a folder")
  if not (folder / CONFIG).exists():
    if any((folder / name).exists() for name in ("checkpoints", FINAL)):
      raise ValueError(f"--workdir={workdir} holds a run without its {CONFIG}; give another folder")
    return
  here, there = _leaves(_record(experiment, config, seeds)), _leaves(read(folder))
  names = [name for name in here | there if here.get(name) != there.get(name) and not _may_differ(name, config)]
  if names:
    shown = [f"{name} is {_shown(there.get(name))} there and {_shown(here.get(name))} here" for name in names]
    raise ValueError(f"--workdir={workdir} holds another run: {'; '.join(shown)}; give another folder")


def claim(
  workdir: str | os.PathLike[str], experiment: str, config: configs.Config, seeds: Sequence[int]
) -> pathlib.Path:
  """`check`, then makes the folder and writes its `config.json`."""
  check(workdir, experiment, config, seeds)
  folder = pathlib.Path(workdir)
  if jax.process_index() == 0:
    folder.mkdir(parents=True, exist_ok=True)
    replace(folder / CONFIG, json.dumps(_record(experiment, config, seeds), indent=2) + "\n")
  return folder


def read(workdir: str | os.PathLike[str], flag: str = "--workdir") -> dict[str, Any]:
  """The record in `config.json`: experiment, config, and seeds if there are several; ValueError where there is none.

  flag: the flag that named the folder.
  """
  path = pathlib.Path(workdir) / CONFIG
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise ValueError(f"{flag}={workdir} has no {CONFIG}: it is not the folder of a run") from None
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not JSON ({error}); restore it or give another {flag}") from None


def results(folder: pathlib.Path) -> list[dict[str, Any]] | None:
  """The results of a finished run, one dict a seed; None if it has not finished."""
  path = folder / FINAL
  if not path.exists():
    return None
  try:
    return json.loads(path.read_text(encoding="utf-8"))
  except json.JSONDecodeError as error:
    raise ValueError(f"{path} is not JSON ({error}); delete it to evaluate the checkpoint again") from None


def finish(folder: pathlib.Path, outcome: list[dict[str, Any]]) -> None:
  """Writes the results of all seeds to `final.json`, in process 0."""
  if jax.process_index() == 0:
    replace(folder / FINAL, json.dumps(outcome, indent=2) + "\n")


def replace(path: pathlib.Path, text: str) -> None:
  """Writes a file so that a reader sees the old text or the new, and never a part."""
  partial = path.with_name(f"{path.name}.partial")
  partial.write_text(text, encoding="utf-8")
  partial.replace(path)


def _record(experiment: str, config: configs.Config, seeds: Sequence[int]) -> dict[str, Any]:
  record = {"experiment": experiment, "config": json.loads(configs.to_json(config))}
  return record | {"seeds": list(seeds)} if len(seeds) > 1 else record


def _may_differ(name: str, config: configs.Config) -> bool:
  chooses = name == "config.evaluate_every" and config.checkpoint.select == "best"
  return name.startswith(MAY_DIFFER) and not chooses


def _leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
  leaves: dict[str, Any] = {}
  for name, value in tree.items():
    leaves |= _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
  return leaves | ({ATTENTION: spec.respelled(leaves[ATTENTION])} if ATTENTION in leaves else {})


def _shown(value: Any) -> str:
  return "absent" if value is None else json.dumps(value, ensure_ascii=False)
