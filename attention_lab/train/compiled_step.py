"""The compiled training step, one program for each shape of batch, and what the programs cost.

Bucketed data come in a few shapes; each is compiled when it is first met, ahead of its first step, and never again.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from attention_lab import compile_cache, compiled
from attention_lab.config import Config
from attention_lab.data.dataset import Split
from attention_lab.train import optimizer
from attention_lab.train.cost import Costs, flops_per_token, peak_bytes
from attention_lab.train.state import State, compiler_options
from attention_lab.train.step import Metrics

Batch = dict[str, jax.Array]


class Programs:
  """A step that compiles itself for every new shape of batch, and tells `say` of each but the first.

  costs: FLOPs are those of the first shape, compile times are added up, peak bytes are those of the largest program.
  """

  def __init__(self, step: Any, mesh: Mesh, seeds: int, say: Callable[[str], None]):
    self._step, self._mesh, self._seeds, self._say = step, mesh, seeds, say
    self._programs: dict[tuple, Any] = {}
    self.costs = Costs(0)

  def prepare(self, state: State, batch: Batch, tokens: int, *, compiled: bool) -> Costs:
    """Counts parameters, and the FLOPs of a step on this batch over its tokens; compiles it if it will be run."""
    self.costs.parameters = optimizer.count(state.params) // self._seeds
    self.costs.flops_per_token = flops_per_token(self._step, state, batch, tokens)
    if compiled:
      self._add(state, batch)
    return self.costs

  def __call__(self, state: State, batch: Batch) -> tuple[State, Metrics]:
    """One training step."""
    program = self._programs.get(_shape(batch)) or self._add(state, batch)
    return program(state, batch)

  def _add(self, state: State, batch: Batch) -> Any:
    begun = time.perf_counter()
    with compile_cache.watched() as traffic:
      lowered = self._step.lower(state, batch)
      program = lowered.compile(compiler_options=compiler_options(self._mesh))
    spent, costs, known = time.perf_counter() - begun, self.costs, len(self._programs)
    costs.program = costs.program or compiled.fingerprint(lowered)
    costs.compile_time = (costs.compile_time or 0.0) + spent
    costs.compiled_before = traffic.hits > 0 and (costs.compiled_before or not known)
    costs.peak_bytes = max(costs.peak_bytes or 0, peak_bytes(program, self._mesh, self._seeds))
    self._programs[_shape(batch)] = program
    if known:
      self._say(f"compiled for {_named(batch)} in {spent:.1f} s; {known + 1} programs")
    return program


def tokens_of(batch: Batch, config: Config, tokens_per_example: int, split: Split) -> int:
  """Tokens of one seed's batch: as many for each example as the task says, fewer in the narrower buckets of a split."""
  widest = max(getattr(split, "widths", ()), default=0)
  share = batch["tokens"].shape[-1] / widest if widest and "tokens" in batch else 1.0
  return round(config.batch * tokens_per_example * share)


def _shape(batch: Batch) -> tuple:
  return tuple((name, array.shape) for name, array in batch.items())


def _named(batch: Batch) -> str:
  """`tokens [64, 128]`: the tokens, or else the largest array."""
  name = "tokens" if "tokens" in batch else max(batch, key=lambda name: batch[name].size)
  return f"{name} {list(batch[name].shape)}"
