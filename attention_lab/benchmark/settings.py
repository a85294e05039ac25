"""Settings of a benchmark: variants and peers, lengths, modes, sizes, and how long."""

import dataclasses
import hashlib
import json
import shlex
from typing import Any

from attention_lab.attention import spec
from attention_lab.benchmark import peers as peer_table
from attention_lab.config import nearest_hint
from attention_lab.timing import MIN_ROUNDS

MODES = ("forward", "train", "decode")
DTYPES = ("float32", "bfloat16")
LISTS = ("attention", "lengths", "modes", "peers")


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of a benchmark; ValueError, in one line, for what does not exist or does not fit."""

  attention: tuple[str, ...]  # specs
  lengths: tuple[int, ...] = (256, 512, 1024, 2048, 4096)  # T = S
  modes: tuple[str, ...] = MODES
  dtype: str = "float32"  # type of q, k, v and x; parameters are float32
  batch: int = 1
  heads: int = 8
  kv_heads: int = 0  # 0 = heads
  head_width: int = 64
  causal: bool = True  # the mask of forward and train; decoding is always causal
  window: int = 0  # W of that mask; 0 = none
  rounds: int = 20  # at each mode and length
  seconds: float = 60.0  # limit of measuring at each mode and length; at least 3 rounds
  baseline: str = ""  # the row that ratios are to; empty = the first variant
  peers: tuple[str, ...] = ()
  memory: float = 0.0  # GiB that a program may take; 0 = what is available
  huge_pages: bool = False  # the allocator is set as in `pages`
  matmul: int = 2048  # rows and columns of the matrix product that stands for the peak

  def __post_init__(self):
    if not self.attention:
      raise ValueError("--attention is empty: name at least one variant, as in --attention='softmax;linear'")
    object.__setattr__(self, "attention", tuple(dict.fromkeys(_canonical(row) for row in self.attention)))
    object.__setattr__(self, "lengths", tuple(sorted(set(self.lengths))))
    object.__setattr__(self, "kv_heads", self.kv_heads or self.heads)
    object.__setattr__(self, "baseline", self._baseline())
    for name, choices in (("modes", MODES), ("peers", peer_table.NAMES)):
      for value in getattr(self, name):
        _check_choice("mode" if name == "modes" else name, value, choices)
    _check_choice("dtype", self.dtype, DTYPES)
    self._check_numbers()
    if self.huge_pages:
      peer_table.check_pages(self.peers)

  def names(self) -> tuple[str, ...]:
    """Variants and peers in the order in which a round runs them: the baseline first."""
    return tuple(dict.fromkeys((self.baseline, *self.attention, *self.peers)))

  def row_settings(self) -> dict[str, Any]:
    """The settings that two rows must share to stand in one table."""
    return {name: value for name, value in dataclasses.asdict(self).items() if name not in (*LISTS, "memory")}

  def command(self, name: str, length: int, mode: str) -> str:
    """The command that makes one row again, with its baseline beside it."""
    peer = name in peer_table.NAMES
    values = {"attention": self.attention[0] if peer else name, "lengths": length, "mode": mode}
    values |= {"peers": name} if peer else {}
    values |= {k: v for k, v in self.row_settings().items() if v != _DEFAULTS[k] and k not in ("causal", "huge_pages")}
    flags = [f"--{key}={value}" for key, value in values.items()]
    flags += ["--nocausal"] * (not self.causal) + ["--huge_pages"] * self.huge_pages
    return " ".join(["python", "-m", "experiments.benchmark", *map(shlex.quote, flags)])

  def _baseline(self) -> str:
    if not self.baseline:
      return self.attention[0]
    return self.baseline if self.baseline in self.peers else _canonical(self.baseline)

  def _check_numbers(self) -> None:
    for name in ("lengths", "modes"):
      if not getattr(self, name):
        raise ValueError(f"--{'mode' if name == 'modes' else name} is empty: name at least one")
    for name, least in (("batch", 1), ("heads", 1), ("head_width", 1), ("rounds", MIN_ROUNDS), ("matmul", 1)):
      if getattr(self, name) < least:
        raise ValueError(f"--{name}={getattr(self, name)} must be at least {least}")
    if min(self.lengths) < 2:
      raise ValueError(f"--lengths={min(self.lengths)} must be at least 2")
    if self.window < 0 or (self.window and "decode" in self.modes):
      raise ValueError(f"--window={self.window} must be at least 0, and is for --mode=forward,train alone")
    if not self.seconds > 0 or self.memory < 0:
      raise ValueError(f"--seconds={self.seconds:g} must be above 0 and --memory={self.memory:g} not below")
    if self.kv_heads < 1 or self.heads % self.kv_heads:
      raise ValueError(f"--kv_heads={self.kv_heads} must divide --heads={self.heads}")


def digest(fields: dict[str, Any]) -> str:
  """The first 16 hex digits of the SHA-256 of fields, as JSON with sorted keys."""
  return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:16]


def specs(text: str) -> tuple[str, ...]:
  """The variants of --attention, that `;` separates."""
  return spec.rows(text) if text.strip() else ()


def split(flag: str, text: str, kind: type = str) -> tuple[Any, ...]:
  """The parts of a list that commas separate; ValueError for one that is empty or not of `kind`."""
  parts = tuple(part.strip() for part in text.split(",")) if text.strip() else ()
  try:
    if "" not in parts:
      return tuple(map(kind, parts))
  except ValueError:
    pass
  raise ValueError(f"--{flag}={text} must be a list of {kind.__name__}, separated by commas")


def _canonical(row: str) -> str:
  return spec.to_string(spec.parse(row))


def _check_choice(flag: str, value: str, choices: tuple[str, ...]) -> None:
  if value not in choices:
    raise ValueError(f"--{flag}={value} is not one of {', '.join(choices)}{nearest_hint(value, choices)}")


_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}
