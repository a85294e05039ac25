"""Settings of a benchmark of whole models: models and their sizes, variants, peers, and how long."""

import dataclasses
import importlib.util
import shlex
from collections.abc import Mapping
from typing import Any

from attention_lab.attention import spec
from attention_lab.benchmark.models.workload import Workload
from attention_lab.config import nearest_hint
from attention_lab.timing import MIN_ROUNDS

MATMUL = "matmul"
PAGES = " +huge_pages"  # ending of the name of a row
PEERS = ("hf_eager", "hf_compile")
INSTALL = "pip install -e '.[peers]'"
GPT = {"layers": 6, "width": 256, "heads": 4, "length": 512, "vocabulary": 8192}
SIZES: dict[str, dict[str, int]] = {  # default sizes of each model, by flag
  "gpt": GPT,
  "vit": {"layers": 12, "width": 192, "heads": 3, "image": 224, "patch": 16, "classes": 1000},
  "generate": GPT | {"new_tokens": 512},
  "start": GPT,
}
BATCHES = {"gpt": (8,), "vit": (16,), "generate": (1, 8), "start": (8,)}
ROUNDS = {"gpt": 10, "vit": 10, "generate": 10, "start": 3}
MODELS = tuple(SIZES)
FLAGS = tuple(dict.fromkeys(name for sizes in SIZES.values() for name in sizes))


@dataclasses.dataclass(frozen=True)
class Settings:
  """The settings of a benchmark; ValueError, in one line, for what does not exist or does not fit."""

  models: tuple[str, ...] = ("gpt",)
  attention: tuple[str, ...] = ("softmax",)  # specs
  peers: tuple[str, ...] = ()
  sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)  # by flag; 0 or none = the model's
  batch: tuple[int, ...] = ()  # empty = the model's
  rounds: int = 0  # at each model and batch; 0 = the model's
  seconds: float = 600.0  # limit of the rounds at each model and batch; at least 3 rounds
  pause: float = 0.3  # seconds of rest before each run: threads of the program before it wait for work
  matmul: int = 2048  # rows and columns of the matrix product that stands for the peak
  huge_pages: bool = False  # each of our programs a second time, with the allocator set as in `pages`
  baseline: str = ""  # the row that ratios are to; empty = the first variant

  def __post_init__(self):
    for flag, names, choices in (("model", self.models, MODELS), ("peers", self.peers, PEERS)):
      for value in names:
        if value not in choices:
          raise ValueError(f"--{flag}={value} is not one of {', '.join(choices)}{nearest_hint(value, choices)}")
    for flag, names in (("model", self.models), ("attention", self.attention)):
      if not names:
        raise ValueError(f"--{flag} is empty: name at least one")
    object.__setattr__(self, "models", tuple(dict.fromkeys(self.models)))
    object.__setattr__(self, "attention", tuple(dict.fromkeys(map(spec.canonical, self.attention))))
    object.__setattr__(self, "sizes", {name: value for name, value in self.sizes.items() if value})
    self._check_numbers()
    self._check_use()
    for model in self.models:
      self._check_sizes(model)
    self._check_baseline()

  def size(self, model: str) -> dict[str, int]:
    """The sizes of a model, as asked for, else its defaults."""
    return {name: self.sizes.get(name, default) for name, default in SIZES[model].items()}

  def batches(self, model: str) -> tuple[int, ...]:
    """The numbers of examples in a step; each is a measurement of its own."""
    return self.batch or BATCHES[model]

  def count(self, model: str) -> int:
    """The number of rounds."""
    return self.rounds or ROUNDS[model]

  def workloads(self, model: str, batch: int) -> dict[str, Workload]:
    """The programs of a model by the names of their rows: each variant, once more in huge pages, and the peers."""
    sizes: dict[str, Any] = {"model": model, "batch": batch, **self.size(model)}
    workloads = {}
    for row in self.attention:
      workloads[row] = Workload("lab", attention=row, **sizes)
      if self.huge_pages and model != "start":
        workloads[row + PAGES] = Workload("lab", attention=row, huge_pages=True, **sizes)
    return workloads | {name: Workload(name, **sizes) for name in self.peers if model != "start"}

  def first(self, model: str) -> str:
    """The row that ratios are to; the start of a run has no peers, so that one of them is not it there."""
    return self.baseline if self.baseline and model != "start" else self.attention[0]

  def row_settings(self, model: str, batch: int) -> dict[str, Any]:
    """The settings that two rows must share to stand in one table."""
    sizes = {"model": model, "batch": batch, **self.size(model), "rounds": self.count(model), "matmul": self.matmul}
    return sizes | {"seconds": self.seconds, "pause": self.pause, "baseline": self.first(model)}

  def command(self, model: str, batch: int) -> str:
    """The command that makes the rows of one table again."""
    values: dict[str, Any] = {"model": model, "attention": ";".join(self.attention)}
    values |= {"peers": ",".join(self.peers)} if self.peers and model != "start" else {}
    values |= {name: value for name, value in self.size(model).items() if value != SIZES[model][name]}
    values |= {"batch": batch} if (batch,) != BATCHES[model] else {}
    default = {field.name: field.default for field in dataclasses.fields(self)}
    others = ("rounds", "seconds", "pause", "matmul", *(["baseline"] if model != "start" else []))
    values |= {name: getattr(self, name) for name in others if getattr(self, name) != default[name]}
    flags = [f"--{name}={value}" for name, value in values.items()]
    flags += ["--huge_pages"] * (self.huge_pages and model != "start")
    return " ".join(["python", "-m", "experiments.benchmark_models", *map(shlex.quote, flags)])

  def _check_numbers(self) -> None:
    for name, value in (*self.sizes.items(), *(("batch", size) for size in self.batch), ("matmul", self.matmul)):
      if value < 1:
        raise ValueError(f"--{name}={value} must be at least 1")
    if self.rounds and self.rounds < MIN_ROUNDS:
      raise ValueError(f"--rounds={self.rounds} must be at least {MIN_ROUNDS}; 0 means the model's own")
    if not self.seconds > 0 or self.pause < 0:
      raise ValueError(f"--seconds={self.seconds:g} must be above 0 and --pause={self.pause:g} not below")

  def _check_use(self) -> None:
    """Raises ValueError for a flag that would be accepted and ignored."""
    for name in self.sizes:
      users = [model for model in MODELS if name in SIZES[model]]
      if not set(users) & set(self.models):
        raise ValueError(
          f"--{name}={self.sizes[name]} is no size of --model={','.join(self.models)}: it belongs to {', '.join(users)}"
        )
    if self.models == ("start",):
      for name, value in (("peers", self.peers), ("huge_pages", self.huge_pages), ("baseline", self.baseline)):
        if value:
          raise ValueError(f"--{name} has no part in --model=start, a cold beside a warm start: leave it out")

  def _check_sizes(self, model: str) -> None:
    sizes = self.size(model)
    if sizes["width"] % sizes["heads"]:
      raise ValueError(f"--heads={sizes['heads']} must divide --width={sizes['width']} (--model={model})")
    if "patch" in sizes and sizes["image"] % sizes["patch"]:
      raise ValueError(f"--patch={sizes['patch']} must divide --image={sizes['image']}")
    for row in self.attention:
      spec.layers(row, sizes["layers"])

  def _check_baseline(self) -> None:
    for model in self.models if self.baseline else ():
      names = self.workloads(model, 1)
      if model != "start" and self.baseline not in names:
        hint = nearest_hint(self.baseline, names)
        raise ValueError(f"--baseline={self.baseline} is not one of the rows {', '.join(names)}{hint}")


def check_installed(peers: tuple[str, ...]) -> None:
  """Raises ValueError, with the command that installs them, for peers whose packages are not there."""
  missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
  if peers and missing:
    needed = f"{' and '.join(missing)}, which {'are' if len(missing) > 1 else 'is'} not installed"
    raise ValueError(f"--peers={','.join(peers)} needs {needed}: {INSTALL}")
