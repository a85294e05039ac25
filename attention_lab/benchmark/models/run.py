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

from attention_lab.benchmark import estimates, load
from attention_lab.benchmark.models import report
from attention_lab.benchmark.models.job import Job
from attention_lab.benchmark.models.settings import MATMUL, Settings, check_installed
from attention_lab.benchmark.models.worker import Answer, Died, Worker
from attention_lab.benchmark.settings import digest
from attention_lab.results import provenance
from attention_lab.timing import MIN_ROUNDS

LOG = "workers.log"
COLD, WARM = " cold", " warm"  # behind the names of rows of --model=start

Log = Callable[[str], None]
Row = dict[str, Any]


def execute(settings: Settings, workdir: str | os.PathLike[str], log: Log) -> int:
  """Measures all, writes rows and report, and returns how many rows failed.

  ValueError, before anything is written, for a folder that is a file and for peers that are not installed.
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
      facts = _stamp(settings, model, batch, rows) | {"session": session}
      for row in rows:
        versions = facts["versions"] | row.get("versions", {})
        report.append(folder, facts | row | {"versions": versions})
        failed += row["status"] == "failed"
        log(report.line(row))
      report.write(folder)
  return failed


def rows(
  settings: Settings, model: str, batch: int, answers: Mapping[str, Answer], taken: Mapping[str, list[Answer]]
) -> list[Row]:
  """The rows of one table, from what the workers said when they were ready, and what each said in every round.

  The product of matrices is no row: its times are in all.
  """
  jobs, base = settings.jobs(model, batch), settings.first(model)
  product, table = answers[MATMUL], []
  times = {name: [one["seconds"] for one in runs] for name, runs in taken.items()}
  first = next((answers[name].get("first", {}) for name in jobs if _gives_weights(jobs[name])), {})
  for name, job in jobs.items():
    row: Row = {"model": model, "batch": batch, "attention": name, "peer": job.program != "ours"}
    row |= {"huge_pages": job.huge_pages, "length": job.length, "unit": job.unit, "items": job.items}
    row |= {key: value for key, value in answers[name].items() if key != "first"}
    if row["status"] == "done":
      row |= _speeds(row, name, base, times)
      row |= _shares(row, times[name], times[MATMUL], product["flops"])
      row |= _first(answers[name]["first"], first)
      host = [one["host_seconds"] for one in taken[name] if "host_seconds" in one]
      row |= {"host_seconds": vars(estimates.positive(host))} if host else {}
    table.append(row)
  return table


def _speeds(row: Row, name: str, base: str, times: Mapping[str, list[float]]) -> Row:
  """Medians and intervals; a row keeps the times of its baseline, of the same rounds, so that it stands alone."""
  mine = times[name]
  speed: Row = {"times": mine, "rounds": len(mine), "time": vars(estimates.positive(mine))}
  speed["per_second"] = vars(estimates.positive([row["items"] / one for one in mine]))
  if len(times.get(base, ())) == len(mine):
    speed |= {"baseline_times": times[base], "ratio": vars(estimates.ratio(mine, times[base]))}
  return speed


def _shares(row: Row, mine: list[float], peak: list[float], flops: int) -> Row:
  """The speed of the product in the same rounds, and our share of it where the program's FLOPs are known."""
  shares: Row = {"matmul_times": peak, "matmul_flops_per_second": flops / estimates.positive(peak).median}
  if row.get("flops") and len(peak) == len(mine):
    own = [row["flops"] / one * two / flops for one, two in zip(mine, peak, strict=True)]
    shares |= {"share_of_matmul": vars(estimates.positive(own))}
    shares |= {"flops_per_second": row["flops"] / row["time"]["median"]}
  return shares


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
  jobs = {MATMUL: Job(MATMUL, matmul=settings.matmul)} | settings.jobs(model, batch)
  answers: dict[str, Answer] = {}
  taken: dict[str, list[Answer]] = {}
  with contextlib.ExitStack() as stack:
    scratch = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder, prefix=".weights")))
    workers: dict[str, Worker] = {}
    for name, job in jobs.items():
      log(f"{model} {batch}: {name} starts")
      own = _placed(job, str(scratch / "weights.npz"), answers)
      workers[name] = stack.enter_context(Worker(own.to_json(), folder / LOG))
      answers[name] = _said(workers[name].read)
      if name == MATMUL and answers[name]["status"] != "done":
        raise ValueError(f"--matmul={settings.matmul}: {answers[name]['reason']}; see {folder / LOG}")
    ready = [name for name in jobs if answers[name]["status"] == "done"]
    order = sorted(ready, key=lambda name: (name != MATMUL, name != settings.first(model)))
    taken |= {name: [] for name in order}
    others = _rounds(settings, model, {name: workers[name] for name in order}, answers, taken) if ready[1:] else None
  return [row | {"other_load": others} for row in rows(settings, model, batch, answers, taken)]


def _placed(job: Job, weights: str, answers: Mapping[str, Answer]) -> Job:
  """Peers run where JAX does, from the weights of softmax if those are there."""
  if job.program == "ours":
    return dataclasses.replace(job, weights=weights) if _gives_weights(job) else job
  held = weights if pathlib.Path(weights).exists() else ""
  platform = answers[MATMUL]["platform"] if MATMUL in answers else ""
  return dataclasses.replace(job, weights=held, platform=platform)


def _gives_weights(job: Job) -> bool:
  return job.program == "ours" and job.attention == "softmax" and not job.huge_pages


def _said(answer: Callable[[], Answer]) -> Answer:
  """An answer, or the failure of a worker that died."""
  try:
    return answer()
  except Died as error:
    return {"status": "failed", "reason": str(error)}


def _rounds(
  settings: Settings,
  model: str,
  workers: Mapping[str, Worker],
  answers: dict[str, Answer],
  taken: dict[str, list[Answer]],
) -> float | None:
  """One run of each in every round, until rounds or seconds are over; gives the cores that others used meanwhile.

  What dies is `failed`, and left out from then on.
  """
  alive, begun, meter = dict(workers), time.monotonic(), load.Meter()
  used = {name: -_said(lambda one=one: one.ask("usage")).get("cpu", 0.0) for name, one in alive.items()}
  for number in range(settings.count(model)):
    if number >= MIN_ROUNDS and time.monotonic() - begun > settings.seconds:
      break
    for name, one in list(alive.items()):
      time.sleep(settings.pause)
      said = _said(lambda one=one: one.ask("run"))
      if said.get("status") == "failed":
        answers[name] |= said
        del alive[name]
      else:
        taken[name].append(said)
  elapsed, others = time.monotonic() - begun, meter.read()
  for name, one in alive.items():
    usage = _said(lambda one=one: one.ask("usage"))
    used[name] += usage.get("cpu", 0.0)
    answers[name] |= {"resident": usage.get("resident")}
  return None if others is None else max(0.0, others - sum(used[name] for name in alive) / elapsed)


def _measure_starts(settings: Settings, model: str, batch: int, folder: pathlib.Path, log: Log) -> list[Row]:
  """Two processes in turn, the first with an empty cache of compiled programs, the second with what that left."""
  jobs = settings.jobs(model, batch)
  taken: dict[str, list[Answer]] = {name + how: [] for name in jobs for how in (COLD, WARM)}
  begun = time.monotonic()
  for number in range(settings.count(model)):
    if number >= MIN_ROUNDS and time.monotonic() - begun > settings.seconds:
      break
    for name, job in jobs.items():
      if any(one["status"] != "done" for one in taken[name + COLD]):
        continue
      with tempfile.TemporaryDirectory(dir=folder, prefix=".cache") as cache:
        for how in (COLD, WARM):
          time.sleep(settings.pause)
          with Worker(dataclasses.replace(job, cache=cache).to_json(), folder / LOG) as worker:
            taken[name + how].append(_said(worker.read))
      log(f"{model} {batch}: {name}, round {number + 1}")
  return starts(settings, batch, taken)


def starts(settings: Settings, batch: int, taken: Mapping[str, list[Answer]]) -> list[Row]:
  """A cold and a warm row for each variant; a ratio is to its own cold start."""
  table = []
  for name, answers in taken.items():
    row: Row = {"model": "start", "batch": batch, "attention": name, "peer": False, "huge_pages": False}
    row |= answers[0] | {"length": settings.size("start")["length"]}
    bad = next((answer for answer in answers if answer["status"] != "done"), None)
    if bad:
      row |= {"status": bad["status"], "reason": bad["reason"]}
    else:
      parts = [key for key in answers[0] if key.endswith("_seconds")]
      row |= {key: vars(estimates.positive([one[key] for one in answers])) for key in parts}
      row |= {"hits": [one["hits"] for one in answers], "requests": [one["requests"] for one in answers]}
      cold = taken[name.removesuffix(WARM).removesuffix(COLD) + COLD]
      if all(one["status"] == "done" for one in cold):
        times = {name: [one["seconds"] for one in answers], COLD: [one["seconds"] for one in cold]}
        row |= _speeds({"items": 1}, name, COLD, times)
    table.append({key: value for key, value in row.items() if key not in ("seconds", "per_second")})
  return table


def _stamp(settings: Settings, model: str, batch: int, found: list[Row]) -> Row:
  """What holds of every row of a table; versions of peers are a matter of their own rows."""
  facts: Row = {"settings": settings.facts(model, batch), "commit": provenance.commit()}
  device = next((row["device"] for row in found if row.get("device")), "")
  facts |= {"versions": provenance.versions(), "device": device, "cores": load.cores()}
  return facts | {"digest": digest(facts), "command": settings.command(model, batch)}
