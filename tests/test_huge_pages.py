import os
import subprocess
import sys

import pytest

from attention_lab import huge_pages

PAGES = 4096  # of one array of the program below
PROGRAM = """
import os, sys
from attention_lab import huge_pages
print("begins", *sys.argv[1:])
huge_pages.restart()
import resource
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.sin(x).sum() + jnp.cos(x[::-1]).sum())
x = jnp.ones(2**22)
step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
  (x + 1).block_until_ready()
print("faults", resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_huge_pages_are_refused_once_jax_is_there_and_elsewhere_than_on_linux(monkeypatch):
  with pytest.raises(ValueError, match=r"--huge_pages (must be set before jax|needs)"):
    huge_pages.enable()
  monkeypatch.setattr(huge_pages.platform, "system", lambda: "Darwin")
  with pytest.raises(ValueError, match="needs Linux with glibc, and this is Darwin"):
    huge_pages.enable()


def test_huge_pages_are_refused_where_they_are_off(monkeypatch, tmp_path):
  monkeypatch.setattr(huge_pages, "SETTING", tmp_path / "enabled")
  monkeypatch.setattr(huge_pages.platform, "system", lambda: "Linux")
  monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.36"))
  with pytest.raises(ValueError, match="transparent huge pages, which are off"):
    huge_pages.enable()


def fit():
  return not huge_pages._unfit()


@pytest.mark.skipif(not fit(), reason="needs Linux with glibc and transparent huge pages")
def test_a_program_that_restarts_keeps_its_arguments_and_faults_no_more():
  environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
  plain = PROGRAM.replace("huge_pages.restart()", "")
  faults = {}
  for name, text in (("plain", plain), ("restarted", PROGRAM)):
    command = [sys.executable, "-c", text, "a", "b c"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    *begun, last = result.stdout.splitlines()
    assert begun == ["begins a b c"] * (2 if name == "restarted" else 1)
    faults[name] = int(last.split()[1])
  assert faults["plain"] > PAGES  # how often a freed array's pages go back to the system is up to the threads
  assert faults["restarted"] < PAGES / 8


def test_an_old_c_library_is_refused_by_its_version(monkeypatch):
  monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
  monkeypatch.setattr(huge_pages, "_unfit", lambda: "")
  monkeypatch.setattr(huge_pages.platform, "libc_ver", lambda: ("glibc", "2.31"))
  with pytest.raises(ValueError, match=r"--huge_pages needs glibc 2.35, and this is 2.31"):
    huge_pages.restart()
  huge_pages.restart(required=False)
  assert "GLIBC_TUNABLES" not in os.environ
