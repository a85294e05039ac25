"""What a run refuses before it compiles or writes anything."""

from collections.abc import Sequence

from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.config import Config, flatten

_LEAST = {
  "config.steps": 1,
  "config.batch": 1,
  "config.evaluate_every": 0,
  "config.optimizer.learning_rate": 0,
  "config.optimizer.warmup": 0,
  "config.optimizer.weight_decay": 0,
  "config.optimizer.clip": 0,
  "config.optimizer.accumulate": 1,
  "config.checkpoint.every": 0,
  "config.checkpoint.keep": 0,
}


def check(config: Config, mesh: Mesh, seeds: Sequence[int]) -> None:
  """Raises ValueError, one line naming the flags, for a number that cannot be trained with."""
  fields = flatten(config)
  for name, least in _LEAST.items():
    if not fields[name] >= least:
      raise ValueError(f"--{name}={fields[name]} is less than {least}")
  if config.optimizer.warmup >= config.steps:
    flags = f"--config.optimizer.warmup={config.optimizer.warmup} and --config.steps={config.steps}"
    raise ValueError(f"{flags}: the warm-up must be shorter than the run")
  if config.checkpoint.every and not config.checkpoint.keep:
    flags = f"--config.checkpoint.every={config.checkpoint.every} with --config.checkpoint.keep=0"
    raise ValueError(f"{flags} would keep none of them: keep at least 1")
  if len(set(seeds)) != len(seeds):
    raise ValueError(f"seeds {', '.join(map(str, seeds))}: name each once")
  for seed in seeds:
    if not 0 <= seed < 2**32:
      raise ValueError(f"seed {seed} is not in 0 … 2³² - 1")
  meshes.check(config, mesh)
