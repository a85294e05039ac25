"""Torch takes one thread, and a run that compares ends with the largest difference of each pair."""

import sys

import agreement
import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
  try:
    import torch
  except ImportError:
    return
  torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded():
  try:
    import torch
  except ImportError:
    return
  torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter):
  if "torch" not in sys.modules or not agreement.DIFFERENCES:
    return
  terminalreporter.section("largest differences from peers, relative to the largest output")
  for variant, peers in sorted(agreement.PEERS.items()):
    for peer in peers:
      difference = agreement.DIFFERENCES.get((variant, peer.name))
      seen = "not run" if difference is None else f"{difference:.1e}"
      terminalreporter.write_line(f"{seen}  {variant:<16} {peer.name}")
