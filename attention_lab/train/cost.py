"""The cost of a run: parameters, FLOPs, bytes, seconds, tokens; and the line that shows it."""

import dataclasses
from collections.abc import Callable
from typing import Any

from jax.sharding import Mesh

from attention_lab import compiled as programs
from attention_lab.config import Config
from attention_lab.data.dataset import Split
from attention_lab.train.state import State, platform


@dataclasses.dataclass
class Costs:
  """The cost of one seed's run; None where it was not measured."""

  parameters: int  # trainable ones
  flops_per_token: float | None = None  # of a whole training step; None for a loop of unknown length
  step_time: float | None = None  # seconds, median over steps
  peak_bytes: int | None = None  # on one device
  compile_time: float | None = None  # seconds, of the one program of all seeds
  program: str | None = None  # fingerprint of the lowered step, on the first shape of batch
  compiled_before: bool = False  # it was read from the compile cache, so that the time is that of reading


def flops_per_token(step: Callable, state: State, batch: Any, tokens: int) -> float | None:
  """FLOPs of one step for each of its `tokens`, those of all seeds; None where a loop's length is not known."""
  try:
    return programs.flops(step, state, batch) / tokens
  except ValueError:
    return None


def peak_bytes(step: Any, mesh: Mesh, seeds: int) -> int:
  """One seed's share of a compiled step: of its state, and of the temporaries, which seeds use in turn on a CPU."""
  memory = programs.memory(step)
  sharing = 1 if platform(mesh) == "cpu" else seeds
  return (memory["peak"] - memory["temporaries"]) // seeds + memory["temporaries"] // sharing


def batch_tokens(batch: Any, config: Config, tokens_per_example: int, split: Split) -> int:
  """Tokens of one seed's batch: as many for each example as the task says, fewer in the narrower buckets of a split."""
  widest = max(getattr(split, "widths", ()), default=0)
  share = batch["tokens"].shape[-1] / widest if widest and "tokens" in batch else 1.0
  return round(config.batch * tokens_per_example * share)


def headline(costs: Costs, mesh: Mesh, seeds: int, tokens: int, positions: str = "") -> str:
  """Devices, parameters, position codes, FLOPs per token, tokens per step and compile time in one line."""
  axes = ", ".join(f"{name} {size}" for name, size in mesh.shape.items() if size > 1)
  parts = [f"{mesh.size} {mesh.devices.flat[0].device_kind} device{f's ({axes})' if mesh.size > 1 else ''}"]
  parts += [f"{costs.parameters:,} parameters"]
  parts += [f"positions: {positions}"] if positions else []
  parts += [f"{costs.flops_per_token:,.0f} FLOPs per token" if costs.flops_per_token else "FLOPs not countable"]
  parts += [f"{tokens:,} tokens per step"]
  if costs.compile_time is not None:
    how = "read from the compile cache" if costs.compiled_before else "compiled"
    parts += [f"{how} in {costs.compile_time:.1f} s; one program{f' for {seeds} seeds' if seeds > 1 else ''}"]
  return " · ".join(parts)
