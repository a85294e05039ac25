"""Eight devices on the CPU, arithmetic that refuses what it would otherwise guess, and programs that compile fast."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # halves the time to compile
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # nothing is read from or left in the user's cache folder

import jax

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

SLOWEST = ("test_readme.py", "test_runs.py", "test_battery.py")


def pytest_collection_modifyitems(items):
  """The slowest files come first, so that no worker is left with them at the end."""
  items.sort(key=lambda item: item.path.name not in SLOWEST)
