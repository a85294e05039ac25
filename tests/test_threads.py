"""The number of threads is stated, and a number does not depend on how many cores happen to be free."""

import os
import pathlib
import subprocess
import sys

import pytest

from attention_lab import threads

ROOT = pathlib.Path(__file__).parent.parent
PROGRAM = """
import os
os.sched_setaffinity(0, {}) if {} else None
from attention_lab import threads
threads.use({})
import jax, jax.numpy as jnp
x, y = (jax.random.normal(key, (2048, 300)) for key in jax.random.split(jax.random.key(0)))
print(*(float(value) for value in (jnp.sum(x.T @ y), jnp.sum(jnp.sin(x)))), threads.record("cpu")["threads"])
"""


def numbers(cores, count):
  code = PROGRAM.format(cores or "{}", bool(cores), count)
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.run(
    [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
  ).stdout


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="pins to cores")
def test_numbers_are_equal_bit_for_bit_on_one_core_and_on_all():
  first = min(os.sched_getaffinity(0))
  assert numbers({first}, 2) == numbers(None, 2) != ""


def test_other_devices_have_no_threads_of_ours(monkeypatch):
  monkeypatch.setenv(threads.VARIABLE, "3")
  assert threads.record("cpu") == {"threads": 3, "processor": threads.processor()}
  assert threads.record("gpu") == {}
  assert threads.processor()
