"""Explanations of a row: the operations of its compiled program, and the outcome of other implementations."""

import collections
import dataclasses
import re
import typing
from typing import Any

from attention_lab.attention.base import Attention
from attention_lab.benchmark.program import Case, Program
from attention_lab.benchmark.variant_program import compile_variant

OPERATIONS = ("fusion", "dot", "convolution", "while", "custom-call", "call", "sort", "gather", "scatter")
_OPERATION = re.compile(r"\s(" + "|".join(OPERATIONS) + r")\(")
_SHAPE = re.compile(r"\b[a-z]+\d*\[([\d,]+)\]")
_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) .*\{$")


def summary(program: Program, case: Case) -> dict[str, Any] | None:
  """The counts of operations of each kind in a compiled program (a loop's body once), its bytes, and `dense`.

  dense: an array with two axes of the sequence's length exists outside of fusions; None in decoding and where another
  axis is as long, so that nobody can tell. The summary is None for a program without text.
  """
  if program.text is None:
    return None
  lines = program.text.splitlines()
  matches = [match.group(1) for line in lines if " = " in line and (match := _OPERATION.search(line))]
  targets = [match.group(1) for line in lines if (match := re.search(r'custom_call_target="([^"]+)"', line))]
  counts = collections.Counter(matches)
  return {
    "operations": {name: counts[name] for name in OPERATIONS if counts[name]},
    "custom_calls": dict(collections.Counter(targets)),
    "temporaries": (program.memory or {}).get("temporaries"),
    "dense": dense(outside_fusions(program.text), case),
  }


def outside_fusions(text: str) -> list[str]:
  """The lines of a compiled program whose results are buffers: bodies of fusions and reducers left out."""
  inner = set(re.findall(r"(?:calls|to_apply)=%?([\w.\-]+)", "\n".join(_fused(text))))
  buffers, skipped = [], False
  for line in text.splitlines():
    header = _COMPUTATION.match(line)
    if header:
      skipped = header.group(1) in inner
    elif not skipped:
      buffers.append(line)
  return buffers


def _fused(text: str) -> list[str]:
  return [line for line in text.splitlines() if re.search(r"\s(fusion|reduce|reduce-window|scatter|sort|map)\(", line)]


def dense(lines: list[str], case: Case) -> bool | None:
  """True if one of the lines makes an array with two axes of at least T and less than 2·T."""
  T, N, H = case.length, case.heads, case.head_width
  widths = {case.batch, N, case.kv_heads, H, N * H, case.kv_heads * H, case.batch * N, case.batch * N * H}
  if case.mode == "decode" or any(T <= width < 2 * T for width in widths):
    return None
  results = [line.split(" = ", 1)[1] for line in lines if " = " in line]
  shapes = [dimensions for result in results for dimensions in _SHAPE.findall(result.split("(", 1)[0] or result)]
  return any(sum(T <= int(axis) < 2 * T for axis in shape.split(",")) >= 2 for shape in shapes)


def implementations(variant: Attention, case: Case) -> dict[str, str]:
  """Each implementation that the variant names, with `ran` or the outcome of compiling it."""
  fields = {field.name for field in dataclasses.fields(variant)}
  if "implementation" not in fields:
    return {"xla": "ran: the variant has no other implementation"}
  options = typing.get_args(typing.get_type_hints(type(variant))["implementation"])
  named = vars(variant)["implementation"]
  return {option: "ran" if option == named else _outcome(variant, option, case) for option in options}


def _outcome(variant: Attention, option: str, case: Case) -> str:
  try:
    changed: dict[str, Any] = {"implementation": option}
    compile_variant(dataclasses.replace(variant, **changed), case)
  except Exception as error:
    return f"not used: {(str(error).splitlines() or [type(error).__name__])[0][:200]}"
  return f"not used: not named; it compiles here, as implementation='{option}'"


def sentences(row: dict[str, Any]) -> list[str]:
  """The sentences that explain a row."""
  tried = row.get("implementations")
  lines = [f"{name}: {outcome}" for name, outcome in (tried or {}).items()]
  if tried is None and not row.get("peer"):
    lines = ["other implementations: not tried, for the row was measured without --explain"]
  made = row.get("program")
  if not made:
    return [*lines, "compiler: its output cannot be read here"]
  counts = ", ".join(f"{count} {name}" for name, count in made["operations"].items()) or "no operation of note"
  calls = "".join(f", {count} × {name}" for name, count in made["custom_calls"].items())
  held = {True: "a T × S buffer exists", False: "no T × S buffer exists", None: "T × S buffer: cannot be told here"}
  temporaries = f"{made['temporaries'] / 2**20:.2f} MiB of temporaries"
  return [*lines, f"compiler: {counts}{calls}", f"{temporaries}; {held[made['dense']]}"]
