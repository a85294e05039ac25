"""Workloads: what a worker is asked to build and run, and the data that all workers see.

It imports neither jax nor torch; numpy starts threads, so that a worker that sets its allocator does so before.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 0  # seed of initial values and data
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 0.01  # settings of AdamW, in both systems


@dataclasses.dataclass(frozen=True)
class Workload:
  """The description of one program; a size that its model does not have is 0."""

  program: str  # lab, hf_eager, hf_compile or matmul
  model: str = ""  # gpt, vit, generate or start
  attention: str = "softmax"  # spec
  batch: int = 1
  layers: int = 0
  width: int = 0
  heads: int = 0
  length: int = 0  # T, tokens of a training example or of a prompt
  vocabulary: int = 0
  new_tokens: int = 0  # generated after the prompt
  image: int = 0  # side of an image, pixels
  patch: int = 0  # side of a patch, pixels
  classes: int = 0
  matmul: int = 0  # rows and columns of the matrix product
  huge_pages: bool = False
  platform: str = "cpu"  # that JAX runs on; a peer runs there too
  weights: str = ""  # a file of initial values, which the first model of softmax writes and a peer reads
  cache: str = ""  # folder of compiled programs; empty = what the environment says

  def to_json(self) -> str:
    """The workload as one line of JSON."""
    return json.dumps(dataclasses.asdict(self))

  @property
  def unit(self) -> str:
    """The unit that is counted in a second."""
    return "images" if self.model == "vit" else "tokens"

  @property
  def items(self) -> int:
    """The number of units in one run."""
    return self.batch * {"vit": 1, "generate": self.new_tokens}.get(self.model, self.length)


@dataclasses.dataclass
class ModelProgram:
  """A program that is built: `run(i)` runs it on batch i and gives `seconds` and its other measurements."""

  run: Callable[[int], dict[str, Any]]
  fields: dict[str, Any] = dataclasses.field(default_factory=dict)  # fields of its row that are known once it is built


def from_json(text: str) -> Workload:
  """The inverse of `Workload.to_json`."""
  return Workload(**json.loads(text))


def tokens(workload: Workload, number: int) -> np.ndarray:
  """The uniform tokens of batch `number`, int32: examples and their targets `B T+1`, or prompts `B T`."""
  width = workload.length if workload.model == "generate" else workload.length + 1
  return np.random.default_rng((SEED, number)).integers(0, workload.vocabulary, (workload.batch, width), np.int32)


def images(workload: Workload, number: int) -> tuple[np.ndarray, np.ndarray]:
  """The uniform pixels in [0, 1) `B h w c`, and labels `B` int32, of batch `number`."""
  draw = np.random.default_rng((SEED, number))
  pixels = draw.random((workload.batch, workload.image, workload.image, 3), np.float32)
  return pixels, draw.integers(0, workload.classes, workload.batch, np.int32)
