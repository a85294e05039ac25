"""The rows of a comparison: a spec, or `SPEC@FIELD=VALUE,…` with fields of `config.model` that differ in it alone.

  softmax;additive@architecture=bilstm,pooling=attention;softmax@architecture=cnn

sets two baselines beside a Transformer. All else is shared, so that a row still stands in the table of its task.
"""

import re

from attention_lab import config as configs
from attention_lab.attention import Unsupported, spec


def canonical(text: str) -> str:
  """The canonical spelling of a row; ValueError for a malformed one."""
  attention, changes = split(text)
  fields = ",".join(f"{name}={value}" for name, value in sorted(changes.items()))
  return f"{spec.canonical(attention)}@{fields}" if changes else spec.canonical(attention)


def split(text: str) -> tuple[str, dict[str, str]]:
  """The spec and the changed fields of a row.

  Raises:
    ValueError: in one line, for a row that is malformed or changes its variant behind the @.
  """
  attention, mark, rest = text.partition("@")
  parts = re.split(r",(?=\s*\w+\s*=)", rest) if mark else []
  changes = {}
  for part in parts:
    name, equals, value = (side.strip() for side in part.partition("="))
    if not equals or not re.fullmatch(r"\w+", name) or name in changes:
      raise ValueError(f"--attention: row '{text}' is malformed: write SPEC@FIELD=VALUE,FIELD=VALUE, each field once")
    if name == "attention":
      raise ValueError(f"--attention: row '{text}' changes its attention: write the spec in front of the @")
    changes[name] = value
  return attention.strip(), changes


def apply(config: configs.Config, row: str) -> None:
  """Writes a row's variant and changes into `config`; Unsupported for a field that this task's model does not have."""
  attention, changes = split(row)
  config.model.attention = attention
  for name, value in changes.items():
    if not hasattr(config.model, name):
      raise Unsupported(f"config.model.{name} is no field of this task's model: leave the row out here")
    configs.override(config, f"--config.model.{name}={value}")
