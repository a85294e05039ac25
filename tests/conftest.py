"""Eight devices on the CPU, arithmetic that refuses what it would otherwise guess, programs that compile fast, tiers.

Every test is of one tier: `unit` (compiles next to nothing), `compiled` (most of its time is XLA's) or `long` (minutes;
run by -m long). Units come first.
"""

import os

FAST_COMPILE = (  # half of the processor time of a test is the compiler's
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",
  "--xla_cpu_parallel_codegen_split_count=1",
)
os.environ.setdefault("XLA_FLAGS", " ".join(FAST_COMPILE))
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "0"  # nothing is read from or left in the user's cache folder

import jax
import pytest

jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

UNIT_FOLDERS = ("compare", "data", "results")
UNIT_FILES = ("test_cli.py", "test_config.py", "test_environments.py", "test_floors.py", "test_style.py")
SLOWEST = ("test_docs.py", "test_runs.py", "test_battery.py")  # of the compiled ones: first, so that none ends alone


def pytest_collection_modifyitems(items):
  """Gives every test its tier and puts units first, then the slowest files."""
  for item in items:
    unit = item.path.parent.name in UNIT_FOLDERS or item.path.name in UNIT_FILES
    if not item.get_closest_marker("long"):
      item.add_marker(pytest.mark.unit if unit else pytest.mark.compiled)
  items.sort(key=lambda item: (not item.get_closest_marker("unit"), item.path.name not in SLOWEST))
