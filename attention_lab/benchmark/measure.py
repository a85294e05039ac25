"""Measures variants and peers side by side at one mode and length."""

import traceback
from collections.abc import Callable, Sequence
from typing import Any

import jax

import attention_lab
from attention_lab import timing
from attention_lab.attention import spec
from attention_lab.attention.base import Unsupported
from attention_lab.benchmark import estimates, explanation, machine, peers
from attention_lab.benchmark.program import Arrays, Case, Program, matmul
from attention_lab.benchmark.settings import Settings
from attention_lab.benchmark.variant_program import compile_variant

MATMUL = "matmul"  # name of the matrix product that stands for the peak
OURS = tuple(attention_lab.__path__)  # folders of this project's code

Row = dict[str, Any]


def cases(settings: Settings) -> list[Case]:
  """The points to be measured: every mode, and in it every length from the shortest on."""
  sizes = (settings.batch, settings.heads, settings.kv_heads, settings.head_width, settings.dtype, settings.causal)
  return [Case(mode, length, *sizes, settings.window) for mode in settings.modes for length in settings.lengths]


def measure(
  settings: Settings,
  case: Case,
  names: Sequence[str],
  after: Callable[[int], Any] = lambda _: None,
  explain: bool = False,
) -> list[Row]:
  """Times variants and peers in interleaved rounds; the baseline runs beside them, whether it is among them or not.

  Args:
    settings: sizes, rounds and limits.
    case: the mode, length and shapes.
    names: variants and peers that get a row.
    after: called with the number of rounds that are done.
    explain: True compiles the other implementations of each variant too.

  Returns:
    One row for each of `names`, in their order, with status done, refused (the variant does not do this), skipped (it
    does not fit) or failed, and a reason.
  """
  inputs: Arrays = {}
  compiled: dict[str, Program] = {}
  samples: dict[str, timing.Sample] = {}
  timed: dict[str, timing.Timed] = {}
  table: dict[str, Row] = {}
  product, operands = matmul(settings.matmul, settings.dtype)
  _start(MATMUL, product, operands, settings, table, samples, timed)
  for name in dict.fromkeys((settings.baseline, *names)):
    table[name], program = _compile(name, case, settings, explain)
    if program is not None:
      inputs = inputs or case.inputs()
      compiled[name] = program
      _start(name, program, inputs, settings, table, samples, timed)
  meter = machine.Meter()
  ready = [name for name in compiled if table[name]["status"] == "done"]
  if any(name in names for name in ready):
    timing.interleave(samples, timed, settings.rounds, settings.seconds, after=after)
  other_load = meter.read()
  for name in ready:
    times = {program: timed[program].times for program in (name, settings.baseline, MATMUL) if program in timed}
    table[name] |= _outcome(timed[name]) | {"other_load": other_load}
    if not timed[name].problem:
      table[name] |= _speeds(times, name, settings.baseline, compiled[name], product)
  return [table[name] for name in names]


def _compile(name: str, case: Case, settings: Settings, explain: bool) -> tuple[Row, Program | None]:
  """The row of a program that was not run yet, and the program if it may be run."""
  variant = None if name in peers.NAMES else spec.parse(name)
  exact = variant is None or variant.claims().exactness == "exact"
  row = {"mode": case.mode, "length": case.length, "attention": name, "peer": variant is None, "exact": exact}
  try:
    program = peers.compile_peer(name, case) if variant is None else compile_variant(variant, case)
  except Exception as error:
    return row | _problem(error, peer=variant is None), None
  row |= {
    "status": "done",
    "reason": "",
    "compile_seconds": program.compile_seconds,
    "compile_cached": program.cached,
    "flops": program.flops,
    "flops_from": program.flops_from,
    "memory": program.memory,
    "needs": program.needs,
    "program": explanation.summary(program, case),
    "implementations": explanation.implementations(variant, case) if variant and explain else None,
  }
  limit = int(settings.memory * 2**30) if settings.memory else machine.free_memory()
  problem = machine.memory_problem(program.needs, limit)
  return (row | {"status": "skipped", "reason": problem}, None) if problem else (row, program)


def _start(
  name: str, program: Program, inputs: Arrays, settings: Settings, table: dict, samples: dict, timed: dict
) -> None:
  """Allocates and warms up a program; one that fails or is too slow is noted in the table and not run again."""
  try:
    sample = program.start(inputs)
    timed[name] = timing.warm_up(sample, settings.seconds)
  except Exception as error:
    if name == MATMUL:
      raise
    table[name] |= _problem(error, table[name]["peer"])
    return
  if timed[name].problem and name != MATMUL:
    table[name] |= _outcome(timed.pop(name))
    return
  samples[name] = sample


def _outcome(timed: timing.Timed) -> Row:
  first = {"first_seconds": timed.first}
  if timed.problem:
    return first | {"status": "skipped" if timed.too_slow else "failed", "reason": timed.problem}
  return first | {"repeats": timed.repeats}


def _problem(error: Exception, peer: bool = False) -> Row:
  """The status and reason of an error: a refusal of this project's own code or of a peer, else a failure."""
  ours = peer or traceback.extract_tb(error.__traceback__)[-1].filename.startswith(OURS)
  reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
  if isinstance(error, Unsupported) or (isinstance(error, ValueError | NotImplementedError) and ours):
    return {"status": "refused", "reason": reason}
  return {"status": "failed", "reason": f"{type(error).__name__}: {reason}"}


def _speeds(times: dict[str, list[float]], name: str, baseline: str, program: Program, product: Program) -> Row:
  """The medians, intervals and shares of a program that was timed."""
  peak = times[MATMUL]
  row = estimates.timed(times[name], times.get(baseline)) | {"matmul_times": peak}
  share = estimates.share_of_matmul(program.flops, times[name], product.flops, peak)
  if share and product.flops:
    share |= {"matmul_flops_per_second": product.flops / estimates.positive(peak).median}
  return row | share


def platform() -> str:
  """The platform that JAX runs on: `cpu`, `gpu` or `tpu`."""
  return jax.default_backend()
