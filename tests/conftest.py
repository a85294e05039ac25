"""Eight devices on the CPU, arithmetic that refuses what it would otherwise guess, and programs that compile fast."""

import os

os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")  # halves the time to compile

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
