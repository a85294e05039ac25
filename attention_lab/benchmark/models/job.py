"""What one worker is asked to build, and the data that all workers see.

It imports neither jax nor torch; numpy starts threads, so that a worker that sets its allocator does so before.
"""

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np

SEED = 0  # of initial values and data
LEARNING_RATE, WEIGHT_DECAY = 3e-4, 0.01  # of AdamW, in both systems


@dataclasses.dataclass(frozen=True)
class Job:
  """One program; a size that its model does not have is 0."""

  program: str  # ours, hf_eager, hf_compile or matmul
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
    """One line."""
    return json.dumps(dataclasses.asdict(self))

  @property
  def unit(self) -> str:
    """What is counted in a second."""
    return "images" if self.model == "vit" else "tokens"

  @property
  def items(self) -> int:
    """Units in one run."""
    return self.batch * {"vit": 1, "generate": self.new_tokens}.get(self.model, self.length)


@dataclasses.dataclass
class Subject:
  """A program that is built: `run(i)` runs it on batch i and gives `seconds` and what else it measured."""

  run: Callable[[int], dict[str, Any]]
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)


def from_json(text: str) -> Job:
  """The inverse of `Job.to_json`."""
  return Job(**json.loads(text))


def tokens(job: Job, number: int) -> np.ndarray:
  """Uniform tokens of batch `number`, int32: examples and their targets `B T+1`, or prompts `B T`."""
  width = job.length if job.model == "generate" else job.length + 1
  return np.random.default_rng((SEED, number)).integers(0, job.vocabulary, (job.batch, width), np.int32)


def images(job: Job, number: int) -> tuple[np.ndarray, np.ndarray]:
  """Uniform pixels in [0, 1) `B h w c`, and labels `B` int32, of batch `number`."""
  draw = np.random.default_rng((SEED, number))
  pixels = draw.random((job.batch, job.image, job.image, 3), np.float32)
  return pixels, draw.integers(0, job.classes, job.batch, np.int32)
