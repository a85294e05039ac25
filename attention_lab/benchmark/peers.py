"""Peers, which a user would otherwise pick, measured in the same rounds: their names, and whether each can run here.

torch and JAX share one process: torch is given as many threads as there are cores, and waits while JAX runs.
"""

import importlib.util
from collections.abc import Sequence

from attention_lab.benchmark.program import Case, Program

NAMES = ("torch_sdpa", "torch_flex", "jax_dpa", "jax_cudnn", "tokamax")
TORCH = ("torch_sdpa", "torch_flex")
PACKAGES = {
  "torch_sdpa": ("torch", "pip install -e '.[peers]'"),
  "torch_flex": ("torch", "pip install -e '.[peers]'"),
  "tokamax": ("tokamax", "pip install tokamax"),
}
GPU = ("jax_cudnn", "tokamax")


def check_pages(names: Sequence[str]) -> None:
  """Raises ValueError for a peer that cannot share a process with --huge_pages."""
  for name in names:
    if name in TORCH:
      raise ValueError(f"--huge_pages and --peers={name} exclude each other: that allocator slows torch; leave one out")


def check(names: Sequence[str], platform: str) -> None:
  """Raises ValueError, naming the extra, for a peer that is not installed or does not run on this platform."""
  for name in names:
    package, install = PACKAGES.get(name, ("", ""))
    if package and importlib.util.find_spec(package) is None:
      raise ValueError(f"--peers={name} needs {package}, which is not installed: {install}")
    if name in GPU and platform != "gpu":
      raise ValueError(f"--peers={name} needs a GPU, and this is a {platform}: leave it out")


def compile_peer(name: str, case: Case) -> Program:
  """The program of a peer at a case; raises Unsupported for a call that it does not have."""
  if name in TORCH:
    from attention_lab.benchmark import torch_peers

    return torch_peers.compile_torch(name, case)
  from attention_lab.benchmark import jax_peers

  return jax_peers.compile_jax(name, case)
