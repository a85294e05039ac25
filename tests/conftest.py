"""Eight devices on the CPU, and arithmetic that refuses what it would otherwise guess."""

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
