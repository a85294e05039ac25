"""Types of tokens: a model has as many as its data."""

import dataclasses
from collections.abc import Mapping
from typing import Any, TypeVar

from attention_lab.models.classifier import ClassifierConfig

Config = TypeVar("Config", bound=ClassifierConfig)


def typed(config: Config, facts: Mapping[str, Any], name: str) -> Config:
  """`config` with the `types` of the dataset `name`, for 0; raises ValueError for another number of them."""
  found = facts.get("types", 0)
  if config.types not in (0, found):
    told = f"{name} tells {found} types of tokens apart" if found else f"{name} has no types of tokens"
    raise ValueError(f"--config.model.types={config.types}: {told}; give {found}, or 0 for what the data have")
  return dataclasses.replace(config, types=found)
