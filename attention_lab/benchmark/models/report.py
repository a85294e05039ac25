"""The rows and the report of whole models: one table for each model and batch, that of its newest session."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from attention_lab.benchmark import machine
from attention_lab.benchmark.tables import between, duration
from attention_lab.results import figures, formatting, pages, records
from attention_lab.results.figures import Axis, Rank
from attention_lab.results.pages import Block, Listing, Prose, Section, Table

FILE = "rows.jsonl"
STATUSES = ("done", "refused", "failed")
REQUIRED = ("model", "batch", "attention", "status", "reason", "digest", "session", "settings")
TITLES = {
  "gpt": "GPT, one training step",
  "vit": "Vision Transformer, one training step",
  "generate": "Generation, greedy, prefill included",
  "start": "From the start of a process to the end of its first training step",
}
READING = (
  "Each program lives in a process of its own. Every round runs each once, in one order, after a rest in which no "
  "program works; a process times itself, to the end of what the device does, on a batch that lies there already. A "
  "ratio is the median over rounds of time over the baseline's time in the same round; below 1 is faster. Its "
  "interval: from 6 rounds on that of the median by order statistics, below Student's t on logarithms.",
  "Temporaries are those of the compiled program; torch has no such program. Resident is the most memory that the "
  "process ever held, its libraries and compiling included. Share of matmul: FLOP/s over those of a square matrix "
  "product that ran in the same rounds; FLOPs are counted from our jaxpr, and – stands for a loop of unknown length, "
  "or for a peer.",
  "Host is the time until the call of the compiled step returns, before its results are there: the work of Python "
  "and of the runtime. Where it is nearly the whole step, JAX ran the program in the calling thread, as it does with "
  "small ones on a CPU, and host is not a measure of that work.",
)
START = (
  "Cold is with an empty cache of compiled programs, warm with what the cold process left. Compile is tracing, "
  "lowering and compiling of the step (trace and lower are its parts); XLA is compiling, or reading from the cache, of "
  "all programs of the process. Import is from the start of the process to the end of the imports; init makes the "
  "initial values. A ratio is warm over cold."
)

Row = dict[str, Any]


def append(folder: pathlib.Path, row: Mapping[str, Any]) -> None:
  """Adds a row in one synced write."""
  check(row)
  records.append_line(folder / FILE, row)


def check(row: Any) -> None:
  """Raises ValueError for what cannot be a row."""
  records.require(row, REQUIRED, STATUSES)


def write(workdir: str | os.PathLike[str], formats: Sequence[str] = ("svg",)) -> list[pathlib.Path]:
  """Writes the report of the newest session of each model and batch, and returns the files' paths."""
  folder = pathlib.Path(workdir)
  held = records.read_lines(folder / FILE, check)
  tables: dict[tuple[str, int], list[Row]] = {}
  for row in held.rows:
    group = row["model"], row["batch"]
    fresh = group not in tables or tables[group][0]["session"] != row["session"]
    tables[group] = [row] if fresh else [*tables[group], row]
  return pages.write(_page(list(tables.values()), held.damaged), folder, formats)


def line(row: Row) -> str:
  """A row as a log shows it."""
  start = f"{row['model']} {row['batch']} {row['attention']}"
  if row["status"] != "done":
    return f"{start}: {row['status']}: {row['reason']}"
  speed = f", {formatting.count(row['per_second']['median'])} {row['unit']}/s" if "per_second" in row else ""
  ratio = f", {between(row.get('ratio'))} of the baseline" if row.get("ratio") else ""
  return f"{start}: {duration(row['time']['median'])}{speed}{ratio}, {row['rounds']} rounds"


def _page(tables: Sequence[Sequence[Row]], damaged: Sequence[int]) -> pages.Page:
  lines = ", ".join(map(str, damaged))
  notes = [f"{FILE}: line {lines} was cut short by a kill and does not count."] if damaged else []
  models = {rows[0]["model"] for rows in tables}
  reading = [*(READING if models - {"start"} else ()), *((START,) if "start" in models else ())]
  versions = {name: version for rows in tables for row in rows for name, version in row["versions"].items()}
  devices = dict.fromkeys(f"{row['device']} · commit {row['commit']}" for rows in tables for row in rows[:1])
  blocks: list[Block] = [
    *([Prose(notes, "notes")] if notes else []),
    *map(_section, tables),
    Section("How to read this", [Prose(reading)], "reading"),
    Listing("The command behind each table", [(_title(rows), rows[0]["command"]) for rows in tables]),
    Listing("Versions", [(f"{name} {version}", "") for name, version in versions.items()]),
  ]
  return pages.Page("Whole models timed", "; ".join(devices), blocks)


def _section(rows: Sequence[Row]) -> Section:
  busy = max((row.get("other_load") or 0.0 for row in rows), default=0.0)
  quiet = f"**The machine was not quiet**: others used {busy:.1f} cores meanwhile (`other_load` in the rows)."
  blocks: list[Block] = [Prose([_setting(rows)], "hint"), *([Prose([quiet], "notes")] if busy > machine.QUIET else [])]
  blocks += _ratios(rows)
  blocks.append(_starts(rows) if rows[0]["model"] == "start" else _speeds(rows))
  return Section(_title(rows), [*blocks, *_differences(rows)])


def _title(rows: Sequence[Row]) -> str:
  return f"{TITLES[rows[0]['model']]}, batch {rows[0]['batch']}"


def _ratios(rows: Sequence[Row]) -> list[Block]:
  """The time of every row over the baseline's, with its interval; nothing where there is none to compare."""
  ranks = []
  for number, row in enumerate(rows):
    ratio = row.get("ratio")
    if row["status"] == "done" and ratio:
      ends = None if ratio["low"] is None else (ratio["low"], ratio["high"])
      ranks.append(Rank(row["attention"], ratio["median"], number, ends))
  if len(ranks) < 2:
    return []
  baseline = "the cold start" if rows[0]["model"] == "start" else rows[0]["settings"]["baseline"]
  drawn = figures.ranking(sorted(ranks, key=lambda rank: rank.value), Axis(f"time ÷ {baseline}"))
  alt = f"{_title(rows)}: time over that of {baseline}, of {formatting.joined(rank.name for rank in ranks)}"
  file = pages.identifier(f"{rows[0]['model']}_{rows[0]['batch']}_time")
  return [pages.Picture("Time", "Median over rounds and 95 % interval; left is faster.", alt, file, drawn)]


def _setting(rows: Sequence[Row]) -> str:
  row = rows[0]
  left = ("model", "batch", "rounds", "seconds", "pause", "matmul", "baseline")
  sizes = " · ".join(f"{name.replace('_', ' ')} {size}" for name, size in row["settings"].items() if name not in left)
  cores = f"{row['cores']} core{'s' * (row['cores'] != 1)}"
  return f"{row['device']} · {cores} · {sizes} · float32 · commit {row['commit']}"


def _speeds(rows: Sequence[Row]) -> Table:
  unit = next((row["unit"] for row in rows if "unit" in row), "items")
  head = ["row", f"{unit}/s [95 %]", f"time ÷ {rows[0]['settings']['baseline']} [95 %]", "step", "host", "rounds"]
  head[3] = "time" if rows[0]["model"] == "generate" else head[3]
  head += ["temporaries MiB", "resident MiB", "share of matmul [95 %]", "parameters", "compile", "first call"]
  return Table(head, [_cells(row) for row in rows])


def _cells(row: Row) -> list[str]:
  if row["status"] != "done":
    return [f"`{row['attention']}`", f"{row['status']}: {row['reason']}"]
  return [
    f"`{row['attention']}`",
    _rate(row["per_second"]),
    between(row.get("ratio")),
    duration(row["time"]["median"]),
    duration(row["host_seconds"]["median"]) if "host_seconds" in row else "–",
    str(row["rounds"]),
    _mebibytes((row.get("memory") or {}).get("temporaries")),
    _mebibytes(row.get("resident")),
    between(row.get("share_of_matmul"), share=True),
    formatting.count(float(row["parameters"])),
    duration(row.get("compile_seconds")) + " (cached)" * bool(row.get("compile_cached")),
    duration(row.get("first_seconds")),
  ]


def _mebibytes(size: int | None) -> str:
  return formatting.mebibytes(None if size is None else float(size))


def _rate(estimate: Mapping[str, Any]) -> str:
  """Whole units a second from 100 on, three digits below."""
  ends = [end for end in (estimate["median"], estimate["low"], estimate["high"]) if end is not None]
  shown = [formatting.count(end) if end >= 100 else f"{end:.3g}" for end in ends]
  return f"{shown[0]} [{shown[1]}, {shown[2]}]" if len(shown) == 3 else shown[0]


def _starts(rows: Sequence[Row]) -> Table:
  parts = ("import", "init", "compile", "trace", "lower", "backend", "step")
  names = ["XLA" if part == "backend" else "first step" if part == "step" else part for part in parts]
  head = ["row", "seconds to the first step", "time ÷ cold [95 %]", *names, "read from the cache", "rounds"]
  table = []
  for row in rows:
    if row["status"] != "done":
      table.append([f"`{row['attention']}`", f"{row['status']}: {row['reason']}"])
      continue
    spent = [duration(row[f"{part}_seconds"]["median"]) for part in parts]
    read = f"{row['hits'][-1]} of {row['requests'][-1]}"
    whole = [between(row["time"]), between(row.get("ratio"))]
    table.append([f"`{row['attention']}`", *whole, *spent, read, str(row["rounds"])])
  return Table(head, table)


def _differences(rows: Sequence[Row]) -> list[Block]:
  """What is not the same in ours and in a peer that ran beside it."""
  ours = next((row for row in rows if row["attention"] == "softmax" and row["status"] == "done"), None)
  peer = next((row for row in rows if row["peer"] and row["status"] == "done"), None)
  if ours is None or peer is None:
    return []
  model = ours["model"]
  lines = [["parameters", *(formatting.count(float(row["parameters"])) for row in (ours, peer))]]
  if "first_loss" in peer:
    lines.append(["loss of the first step, same weights and batch", *(f"{r['first_loss']:.6f}" for r in (ours, peer))])
  shares = {row["attention"]: row["tokens_equal"] for row in rows if row["peer"] and "tokens_equal" in row}
  equal = [f"{name} {100 * share:.4g} %" for name, share in shares.items()]
  lines += [["tokens of the first prompts, same weights", "the reference", ", ".join(equal)]] if equal else []
  lines += _LAYERS["vit" if model == "vit" else "gpt"]
  lines += _GENERATION if model == "generate" else [*_TRAINING[model], *_STEP]
  return [Section("What differs", [Table(["", "ours", "Hugging Face"], lines, 3)])]


_LAYERS = {
  "gpt": [
    ["embeddings", "times √D on the way in", "as they are; the residual stream is 1/√D of ours"],
    ["ε of the norms", "1e-6", "1e-6 / D, which the 1/√D makes the same (its own default is 1e-5)"],
    ["queries, keys and values", "three linear maps", "one"],
    ["GELU, tanh form", "one expression", "`gelu_pytorch_tanh`, one kernel (`gelu_new`, its default, takes seven)"],
    ["biases", "in all linear maps but the tied head", "the same"],
  ],
  "vit": [
    ["patches", "a product, of images `B h w c` in [0, 1]", "a convolution, of images `B c h w` in [−1, 1]"],
    ["ε of the norms", "1e-6", "1e-6 (its own default is 1e-12)"],
    ["GELU", "tanh form", "`gelu_pytorch_tanh`, the same in one kernel (its default is the exact form)"],
    ["biases", "in all linear maps", "the same"],
  ],
}
_TRAINING = {
  "gpt": [["loss", "in chunks of positions where logits are many: never all alive", "all logits, `cross_entropy`"]],
  "vit": [["loss", "of all logits", "the same"]],
}
_TRAINING["start"] = _TRAINING["gpt"]
_STEP = [
  ["AdamW", "optax, learning rate on a schedule, decay on matrices", "`fused=True`, constant rate, decay on matrices"],
  ["beside it", "global norm of the gradients; a step that is not finite changes nothing", "nothing"],
]
_GENERATION = [["cache", "room for all tokens", "eager: grows by concatenation; compiled: static, room for all tokens"]]
