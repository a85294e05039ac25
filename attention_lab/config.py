"""The configuration of a run: plain dataclasses, one comment with its unit for each field.

They are not frozen, because absl flags set their attributes (`--config.model.width=128`). Each task extends them
in `attention_lab/tasks`; `to_json` and `from_json` are what a workdir's `config.json` holds.
"""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

SCHEMA = 2  # of stored settings: before 2 a warm-up of 0 steps was the automatic one, which is -1


@dataclasses.dataclass
class ModelConfig:
  attention: str = "softmax"  # spec: a variant, `a|b` by layer, `a+b` by head
  layers: int = 2  # L
  width: int = 64  # D, the model width
  heads: int = 2  # N, query heads
  kv_heads: int = 0  # K, key and value heads; 0 = heads
  head_width: int = 0  # H; 0 = width / heads
  mlp_width: int = 0  # F; 0 = 4 * width
  positions: str = "auto"  # auto (what the variant needs), none, learned, sinusoidal, sincos2d, rope(…), rope2d, bias2d
  dropout: float = 0.0  # rate in [0, 1), on embeddings and on both residual branches
  dtype: str = "float32"  # compute dtype: float32 or bfloat16; parameters stay float32
  shared_layers: bool = False  # all layers use one set of parameters
  norm: str = "layer"  # layer, or rms (Zhang and Sennrich 2019)
  norm_place: str = "pre"  # pre (before each branch) or post (after each sum, as first published)
  mlp: str = "gelu"  # gelu, or swiglu (Shazeer 2020)
  remat: str = "none"  # computed again for gradients: none, dots (all but linear maps), full (whole layers)


@dataclasses.dataclass
class DataConfig:
  name: str = ""  # dataset; the binary's --help lists its choices
  path: str = ""  # a file or folder of the user's own, in place of a named dataset
  dir: str = ""  # folder of datasets that TFDS has prepared; "" = its own, ~/tensorflow_datasets
  length: int = 128  # T, tokens per example
  folds: int = 0  # k of a k-fold cross-validation over train and validation; 0 = the splits as they are
  fold: int = 0  # the part of `folds` that is the validation split


@dataclasses.dataclass
class OptimizerConfig:
  learning_rate: float = 3e-3  # peak, reached after the warm-up
  warmup: int = -1  # steps that rise to the peak, then cosine to a tenth of it; 0 = none, -1 = a tenth of all steps
  weight_decay: float = 0.01  # per step and unit of learning rate, on matrices only
  clip: float = 1.0  # largest global gradient norm; 0 = no clipping
  accumulate: int = 1  # micro-batches per step; they divide the batch


@dataclasses.dataclass
class CheckpointConfig:
  every: int = 0  # steps between checkpoints, beside `minutes`; the last step is always saved
  minutes: float = 10.0  # minutes between checkpoints; 0 = none by time
  keep: int = 2  # newest checkpoints kept
  select: str = "last"  # the parameters that are tested: last, or best (on validation, at each evaluation)


@dataclasses.dataclass
class MeshConfig:
  data: int = 0  # devices that split the batch; 0 = all that are left over
  fsdp: int = 1  # devices that split the batch and the parameters
  tensor: int = 1  # devices that split heads and MLP width


@dataclasses.dataclass
class Config:
  seed: int = 0  # initial values, data order and dropout
  steps: int = 1000  # optimizer steps
  batch: int = 64  # examples per step, over all devices
  evaluate_every: int = 0  # steps between evaluations on the validation split; 0 = only at the end
  model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
  data: DataConfig = dataclasses.field(default_factory=DataConfig)
  optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
  checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
  mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)


def to_json(config: Any) -> str:
  """The configuration as indented JSON, nested as its dataclasses are."""
  return json.dumps(dataclasses.asdict(config), indent=2)


def flatten(config: Any, prefix: str = "config") -> dict[str, Any]:
  """Every field by the name of its flag: `{"config.model.width": 64, …}`."""
  leaves: dict[str, Any] = {}
  for field in dataclasses.fields(config):
    value, name = getattr(config, field.name), f"{prefix}.{field.name}"
    leaves |= flatten(value, name) if dataclasses.is_dataclass(value) else {name: value}
  return leaves


def unflatten(kind: type, leaves: dict[str, Any]) -> Any:
  """The inverse of `flatten`, as the dataclass `kind`; raises ValueError for a field it does not have."""
  tree: dict[str, Any] = {}
  for name, value in leaves.items():
    *path, last = name.split(".")[1:]
    node = tree
    for part in path:
      node = node.setdefault(part, {})
    node[last] = value
  return _fill(kind(), tree, "config")


def override(config: Any, flag: str) -> None:
  """Sets one field from a flag `--config.NAME=VALUE`; raises ValueError for an unknown field or an ill-typed value."""
  name, mark, text = flag.lstrip("-").partition("=")
  fields = flatten(config)
  if name not in fields or not mark:
    raise ValueError(f"unknown flag {flag}{nearest_hint(name, fields)}")
  *path, last = name.split(".")[1:]
  for part in path:
    config = getattr(config, part)
  setattr(config, last, _parsed(name, text, type(getattr(config, last))))


def _parsed(name: str, text: str, kind: type) -> Any:
  if kind is bool and text.lower() in ("true", "false", "1", "0"):
    return text.lower() in ("true", "1")
  try:
    if kind is not bool:
      return kind(text)
  except ValueError:
    pass
  raise ValueError(f"--{name}={text} must be of type {kind.__name__}")


def upgraded(record: Mapping[str, Any]) -> dict[str, Any]:
  """A stored record with its `config` or `settings` in the present meaning, and the present `schema`.

  Args:
    record: an object of a workdir's or a comparison's files, its settings nested or flat by name of flag; one without
      "schema" is of before.
  """
  result = dict(record)
  for name in ("config", "settings"):
    if record.get("schema", 1) < SCHEMA and isinstance(record.get(name), Mapping):
      result |= {name: _with_automatic_warmup(record[name]), "schema": SCHEMA}
  return result


def _with_automatic_warmup(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Settings of before schema 2, whose warm-up of 0 steps was a tenth of the run."""
  result = dict(settings)
  if isinstance(result.get("optimizer"), Mapping):
    nested = dict(result["optimizer"])
    result["optimizer"] = nested | ({"warmup": -1} if nested.get("warmup") == 0 else {})
  return result | ({"config.optimizer.warmup": -1} if result.get("config.optimizer.warmup") == 0 else {})


def from_json(kind: type, text: str) -> Any:
  """Rebuilds a configuration of dataclass `kind`; raises ValueError for a field it does not have."""
  return _fill(kind(), json.loads(text), "config")


def _fill(config: Any, values: dict[str, Any], prefix: str) -> Any:
  known = {field.name for field in dataclasses.fields(config)}
  for name, value in values.items():
    if name not in known:
      raise ValueError(f"{prefix}.{name} is not a field of {type(config).__name__}; it has {', '.join(sorted(known))}")
    current = getattr(config, name)
    setattr(config, name, _fill(current, value, f"{prefix}.{name}") if dataclasses.is_dataclass(current) else value)
  return config


def nearest_hint(name: str, choices: Iterable[str]) -> str:
  """The hint in a message about an unknown name: `, did you mean 'softmax'?` where a choice is close to it, else ""."""
  close = difflib.get_close_matches(name, [choice for choice in choices if choice != name], n=1)
  return f", did you mean '{close[0]}'?" if close else ""
