"""The provenance of a number: commit, versions, device, and the one command that makes it again."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shlex
import subprocess
from typing import Any

import jax

from attention_lab import __version__
from attention_lab import config as configs

PACKAGES = ("jax", "jaxlib", "flax", "optax", "grain", "numpy")  # libraries that decide a result


@functools.cache
def commit() -> str:
  """The git commit of this code and a digest of what was edited since; outside a repository, the version."""
  folder = pathlib.Path(__file__).parent.parent.parent
  git = functools.partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=True)
  try:
    head = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
    edited = git(["git", "diff", "HEAD", "--", "attention_lab", "experiments"]).stdout
  except (OSError, subprocess.CalledProcessError):
    return f"version {__version__}"
  return f"{head}+{hashlib.sha256(edited.encode()).hexdigest()[:8]}" if edited else head


def versions() -> dict[str, str]:
  """The versions of Python and of `PACKAGES`."""
  return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in PACKAGES}


def device() -> str:
  """The devices of this run, as in `1 × cpu (x86_64, 2 cores)`."""
  devices = jax.devices()
  kind = devices[0].device_kind
  cores = f" ({platform.machine()}, {os.cpu_count()} cores)" if devices[0].platform == "cpu" else ""
  return f"{len(devices)} × {kind}{cores}"


def command(experiment: str, config: configs.Config) -> str:
  """The command that makes a run of `config` again: every field that differs from the binary's default."""
  default = configs.flatten(type(config)())
  flags = [f"--{name}={value}" for name, value in configs.flatten(config).items() if value != default[name]]
  return " ".join(["python", "-m", f"experiments.{experiment}", *map(shlex.quote, flags)])


def settings(config: configs.Config) -> dict[str, Any]:
  """The settings that all rows of a task share: the flat configuration without seed and variant."""
  flat = configs.flatten(dataclasses.replace(config, seed=0))
  return {name: value for name, value in flat.items() if name not in ("config.seed", "config.model.attention")}
