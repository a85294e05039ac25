"""Whole models in interleaved rounds, A B C A B C …, each in a process of its own."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from attention_lab.benchmark import estimates, machine
from attention_lab.benchmark.models import report
from attention_lab.benchmark.models.settings import MATMUL, Settings, check_installed
from attention_lab.benchmark.models.worker import Answer, Died, Worker
from attention_lab.benchmark.models.workload import Workload
from attention_lab.benchmark.settings import digest
from attention_lab.results import provenance
from attention_lab.timing import MIN_ROUNDS

LOG = "workers.log"  # file of the workers' standard error
COLD, WARM = " cold", " warm"  # endings of the names of rows of --model=start

Log = Callable[[str], None]
Row = dict[str, Any]


def execute(settings: Settings, workdir: str | os.PathLike[str], log: Log) -> int:
  """Measures all models and batches, and writes rows and report.

  Args:
    settings: what is measured.
    workdir: the folder of `rows.jsonl`, the report and the workers' log.
    log: a function that is given lines of progress.

  Returns:
    The number of rows that failed.

  Raises:
    ValueError: before anything is written, for a folder that is a file and for peers that are not installed.
  """
  folder = pathlib.Path(workdir)
  if folder.exists() and not folder.is_dir():
    raise ValueError(f"--workdir={workdir} is a file: give a folder")
  check_installed(settings.peers)
  folder.mkdir(parents=True, exist_ok=True)
  session, failed = uuid.uuid4().hex[:8], 0
  for model in settings.models:
    for batch in settings.batches(model):
      measure = _measure_starts if model == "start" else _measure
      rows = measure(settings, model, batch, folder, log)
      shared = _stamp(settings, model, batch, rows) | {"session": session}
      for row in rows:
        versions = shared["versions"] | row.get("versions", {})
        report.append(folder, shared | row | {"versions": versions})
        failed += row["status"] == "failed"
        log(report.line(row))
      report.write(folder)
  return failed


def rows(
  settings: Settings, model: str, batch: int, answers: Mapping[str, Answer], taken: Mapping[str, list[Answer]]
) -> list[Row]:
  """The rows of one table.

  Args:
    settings: of the benchmark.
    model: gpt, vit or generate.
    batch: examples in a step.
    answers: each worker's answer when it was ready, by the name of its row; MATMUL is among them.
    taken: each worker's answers in the rounds.

  Returns:
    A row for each workload; the matrix product is none, but its times are in all.
  """
  workloads, base = settings.workloads(model, batch), settings.first(model)
  product, table = answers[MATMUL], []
  times = {name: [answer["seconds"] for answer in runs] for name, runs in taken.items()}
  reference: Answer = next(
    (answers[name].get("first", {}) for name in workloads if _gives_weights(workloads[name])), {}
  )
  for name, workload in workloads.items():
    row: Row = {"model": model, "batch": batch, "attention": name, "peer": workload.program != "lab"}
    row |= {
      "huge_pages": workload.huge_pages,
      "length": workload.length,
      "unit": workload.unit,
      "items": workload.items,
    }
    row |= {key: value for key, value in answers[name].items() if key != "first"}
    if row["status"] == "done":
      row |= _speeds(row, times[name], times.get(base))
      row |= _shares(row, times[name], times[MATMUL], product["flops"])
      row |= _first(answers[name]["first"], reference)
      host = [answer["host_seconds"] for answer in taken[name] if "host_seconds" in answer]
      row |= {"host_seconds": vars(estimates.positive(host))} if host else {}
    table.append(row)
  return table


def _speeds(row: Row, times: list[float], baseline: list[float] | None) -> Row:
  """The medians and intervals of a program's times, and of the units that it does in a second."""
  per_second = estimates.positive([row["items"] / seconds for seconds in times])
  return estimates.timed(times, baseline) | {"per_second": vars(per_second)}


def _shares(row: Row, times: list[float], peak: list[float], flops: int) -> Row:
  """The speed of the product in the same rounds, and the row's share of it where the program's FLOPs are known."""
  product = {"matmul_times": peak, "matmul_flops_per_second": flops / estimates.positive(peak).median}
  return product | estimates.share_of_matmul(row.get("flops"), times, flops, peak)


def _first(mine: Answer, reference: Answer) -> Row:
  """The first run: its seconds, its loss, and how many of its tokens are those of the model that gave the weights."""
  row: Row = {"first_seconds": mine["first_seconds"]}
  row |= {"first_loss": mine["loss"]} if "loss" in mine else {}
  if "tokens" in mine and "tokens" in reference:
    pairs = [pair for rows in zip(mine["tokens"], reference["tokens"], strict=True) for pair in zip(*rows, strict=True)]
    row |= {"tokens_equal": sum(a == b for a, b in pairs) / len(pairs)}
  return row


def _measure(settings: Settings, model: str, batch: int, folder: pathlib.Path, log: Log) -> list[Row]:
  """Starts every program, one after the other, then runs them in turn."""
  workloads = {MATMUL: Workload(MATMUL, matmul=settings.matmul)} | settings.workloads(model, batch)
  answers: dict[str, Answer] = {}
  taken: dict[str, list[Answer]] = {}
  with contextlib.ExitStack() as stack:
    scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".weights")))
    workers: dict[str, Worker] = {}
    for name, workload in workloads.items():
      log(f"{model} {batch}: {name} starts")
      assigned = _assigned(workload, str(scratch / "weights.npz"), answers)
      workers[name] = stack.enter_context(Worker(assigned.to_json(), folder / LOG))
      answers[name] = _answer(workers[name])
      if name == MATMUL and answers[name]["status"] != "done":
        raise ValueError(f"--matmul={settings.matmul}: {answers[name]['reason']}; see {folder / LOG}")
    ready = [name for name in workloads if answers[name]["status"] == "done"]
    order = sorted(ready, key=lambda name: (name != MATMUL, name != settings.first(model)))
    taken |= {name: [] for name in order}
    other_load = (
      _rounds(settings, model, {name: workers[name] for name in order}, answers, taken) if ready[1:] else None
    )
  return [row | {"other_load": other_load} for row in rows(settings, model, batch, answers, taken)]


def _assigned(workload: Workload, weights: str, answers: Mapping[str, Answer]) -> Workload:
  """The workload with its platform and file of weights: peers run where JAX does, from the weights of softmax."""
  if workload.program == "lab":
    return dataclasses.replace(workload, weights=weights) if _gives_weights(workload) else workload
  existing = weights if pathlib.Path(weights).exists() else ""
  platform = answers[MATMUL]["platform"] if MATMUL in answers else ""
  return dataclasses.replace(workload, weights=existing, platform=platform)


def _gives_weights(workload: Workload) -> bool:
  return workload.program == "lab" and workload.attention == "softmax" and not workload.huge_pages


def _answer(worker: Worker, word: str = "") -> Answer:
  """The answer of a worker to `word`, or, without one, to its start; the failure of one that died."""
  try:
    return worker.ask(word) if word else worker.read()
  except Died as error:
    return {"status": "failed", "reason": str(error)}


def _rounds(
  settings: Settings,
  model: str,
  workers: Mapping[str, Worker],
  answers: dict[str, Answer],
  taken: dict[str, list[Answer]],
) -> float | None:
  """Runs each worker once in every round, until rounds or seconds are over; a worker that dies is left out.

  Returns the cores that other processes used meanwhile; None where the system does not say.
  """
  alive, begun, meter = dict(workers), time.monotonic(), machine.Meter()
  used = {name: -_answer(worker, "usage").get("cpu", 0.0) for name, worker in alive.items()}
  for number in range(settings.count(model)):
    if number >= MIN_ROUNDS and time.monotonic() - begun > settings.seconds:
      break
    for name, worker in list(alive.items()):
      time.sleep(settings.pause)
      answer = _answer(worker, "run")
      if answer.get("status") == "failed":
        answers[name] |= answer
        del alive[name]
      else:
        taken[name].append(answer)
  elapsed, other_load = time.monotonic() - begun, meter.read()
  for name, worker in alive.items():
    usage = _answer(worker, "usage")
    used[name] += usage.get("cpu", 0.0)
    answers[name] |= {"resident": usage.get("resident")}
  return None if other_load is None else max(0.0, other_load - sum(used[name] for name in alive) / elapsed)


def _measure_starts(settings: Settings, model: str, batch: int, folder: pathlib.Path, log: Log) -> list[Row]:
  """Two processes in turn, the first with an empty cache of compiled programs, the second with what that left."""
  workloads = settings.workloads(model, batch)
  taken: dict[str, list[Answer]] = {name + state: [] for name in workloads for state in (COLD, WARM)}
  begun = time.monotonic()
  for number in range(settings.count(model)):
    if number >= MIN_ROUNDS and time.monotonic() - begun > settings.seconds:
      break
    for name, workload in workloads.items():
      if any(answer["status"] != "done" for answer in taken[name + COLD]):
        continue
      with tempfile.TemporaryDirectory(dir=folder, prefix=".cache") as cache:
        for state in (COLD, WARM):
          time.sleep(settings.pause)
          with Worker(dataclasses.replace(workload, cache=cache).to_json(), folder / LOG) as worker:
            taken[name + state].append(_answer(worker))
      log(f"{model} {batch}: {name}, round {number + 1}")
  return starts(settings, batch, taken)


def starts(settings: Settings, batch: int, taken: Mapping[str, list[Answer]]) -> list[Row]:
  """A cold and a warm row for each variant; a ratio is to its own cold start."""
  table = []
  for name, answers in taken.items():
    row: Row = {"model": "start", "batch": batch, "attention": name, "peer": False, "huge_pages": False}
    row |= answers[0] | {"length": settings.size("start")["length"]}
    failure = next((answer for answer in answers if answer["status"] != "done"), None)
    if failure:
      row |= {"status": failure["status"], "reason": failure["reason"]}
    else:
      parts = [key for key in answers[0] if key.endswith("_seconds")]
      row |= {key: vars(estimates.positive([answer[key] for answer in answers])) for key in parts}
      row |= {"hits": [answer["hits"] for answer in answers], "requests": [answer["requests"] for answer in answers]}
      cold = taken[name.removesuffix(WARM).removesuffix(COLD) + COLD]
      if all(answer["status"] == "done" for answer in cold):
        times, base = ([answer["seconds"] for answer in runs] for runs in (answers, cold))
        row |= _speeds({"items": 1}, times, base)
    table.append({key: value for key, value in row.items() if key not in ("seconds", "per_second")})
  return table


def _stamp(settings: Settings, model: str, batch: int, rows: list[Row]) -> Row:
  """The fields that all rows of a table share; versions of peers are a matter of their own rows."""
  shared: Row = {"settings": settings.row_settings(model, batch), "commit": provenance.commit()}
  device = next((row["device"] for row in rows if row.get("device")), "")
  shared |= {"versions": provenance.versions(), "device": device, "cores": machine.cores()}
  return shared | {"digest": digest(shared), "command": settings.command(model, batch)}
