"""Checks of a configuration and of its data, made before a run compiles or writes anything."""

import math
from collections.abc import Sequence

from jax.sharding import Mesh

from attention_lab import mesh as meshes
from attention_lab.config import Config, flatten, nearest_hint
from attention_lab.data.dataset import Dataset

_MINIMA = {  # least value of each numeric field
  "config.steps": 1,
  "config.batch": 1,
  "config.evaluate_every": 0,
  "config.optimizer.learning_rate": 0,
  "config.optimizer.warmup": -1,
  "config.optimizer.weight_decay": 0,
  "config.optimizer.clip": 0,
  "config.optimizer.accumulate": 1,
  "config.checkpoint.every": 0,
  "config.checkpoint.minutes": 0,
  "config.checkpoint.keep": 0,
  "config.data.folds": 0,
  "config.data.fold": 0,
}
SELECTIONS = ("last", "best")  # values of --config.checkpoint.select


def check(config: Config, mesh: Mesh, seeds: Sequence[int]) -> None:
  """Raises ValueError, one line naming the flags, for a number that cannot be trained with."""
  fields = flatten(config)
  for name, least in _MINIMA.items():
    if not least <= fields[name] < math.inf:
      wrong = f"less than {least}" if fields[name] < least else "not a finite number"
      raise ValueError(f"--{name}={fields[name]} is {wrong}")
  if config.optimizer.warmup >= config.steps:
    flags = f"--config.optimizer.warmup={config.optimizer.warmup} and --config.steps={config.steps}"
    raise ValueError(f"{flags}: the warm-up must be shorter than the run, 0 for none or -1 for a tenth of it")
  if config.checkpoint.every and not config.checkpoint.keep:
    flags = f"--config.checkpoint.every={config.checkpoint.every} with --config.checkpoint.keep=0"
    raise ValueError(f"{flags} would keep none of them: keep at least 1")
  _check_selection(config)
  _check_folds(config)
  if len(set(seeds)) != len(seeds):
    raise ValueError(f"seeds {', '.join(map(str, seeds))}: name each once")
  for seed in seeds:
    if not 0 <= seed < 2**32:
      raise ValueError(f"--config.seed={seed} is not in 0 … 2³² - 1")
  meshes.check(config, mesh)


def check_source(source: Dataset, config: Config) -> None:
  """Raises ValueError for a validation split that is the test split (what is chosen on it would be tested on it), and
  for folds that the task did not cut.
  """
  validation, test = (source.digests.get(split, "") for split in ("validation", "test"))
  if validation and validation == test:
    same = f"both have the digest {test}"
    raise ValueError(f"the validation and the test split of {source.name} are the same ({same}); give two splits")
  asked = {"folds": config.data.folds, "fold": config.data.fold}
  if config.data.folds and source.metadata.get("fold") != asked:
    flag = f"--config.data.folds={config.data.folds}"
    raise ValueError(f"{flag}: the splits of {source.name} are not cut into folds by this task; give 0")


def _check_selection(config: Config) -> None:
  select = config.checkpoint.select
  if select not in SELECTIONS:
    hint = nearest_hint(select, SELECTIONS)
    raise ValueError(f"--config.checkpoint.select={select} is unknown{hint}; choices: {', '.join(SELECTIONS)}")
  if select == "best" and not config.evaluate_every:
    flags = "--config.checkpoint.select=best with --config.evaluate_every=0"
    raise ValueError(f"{flags} has one evaluation to choose from: give --config.evaluate_every=N steps")


def _check_folds(config: Config) -> None:
  folds, fold = config.data.folds, config.data.fold
  if folds == 1:
    raise ValueError(
      "--config.data.folds=1 leaves nothing to train on: take 2 or more, or 0 for the splits as they are"
    )
  if fold >= max(folds, 1):
    flags = f"--config.data.fold={fold} with --config.data.folds={folds}"
    raise ValueError(f"{flags}: the fold is one of 0 … folds - 1" if folds else f"{flags}: give the number of folds")
