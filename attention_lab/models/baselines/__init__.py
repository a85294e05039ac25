"""Models without self-attention, for the same tables: bag of words, convolution, recurrence, residual network.

None of them is split over heads: the mesh splits their batch, and their parameters where `fsdp` does.
"""

import dataclasses
from collections.abc import Iterable

from attention_lab.config import ModelConfig
from attention_lab.models.config_checks import FLAG

EVERY = frozenset({"architecture", "width", "dropout", "dtype"})  # fields that every baseline reads
ATTENTION = frozenset({"attention", "heads", "kv_heads", "head_width"})  # and those of one that calls a variant


def check(config: ModelConfig, name: str, reads: Iterable[str]) -> None:
  """Raises ValueError for a field that `name` does not read and that is not at its default, or that is out of range.

  reads: fields beyond EVERY.
  """
  read, default = EVERY | set(reads), type(config)()
  for field in dataclasses.fields(config):
    value = getattr(config, field.name)
    if field.name not in read and value != getattr(default, field.name):
      fix = f"leave it at {getattr(default, field.name)!r}; {name} reads {', '.join(sorted(read))}"
      raise ValueError(f"{FLAG}.{field.name}={value} means nothing to {name}: {fix}")
  for size, least in {"width": 1, "layers": 1, "types": 0}.items():
    if size in read and getattr(config, size) < least:
      raise ValueError(f"{FLAG}.{size}={getattr(config, size)} is less than {least}")
  if not 0 <= config.dropout < 1:
    raise ValueError(f"{FLAG}.dropout={config.dropout} is not a rate in [0, 1)")
