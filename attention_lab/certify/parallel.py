"""Certificates of many variants, a process for each worker: compiling, which takes most of the time, uses one core."""

import concurrent.futures
import functools
import multiprocessing
from collections.abc import Iterator, Sequence

import jax

from attention_lab.attention import spec
from attention_lab.certify import battery
from attention_lab.certify.finding import Certificate
from attention_lab.certify.sharding import DEVICES


def certificates(rows: Sequence[str], quick: bool, workers: int) -> Iterator[Certificate]:
  """The certificate of each spec, in the order given; with one worker, or one spec, in this process."""
  certify = functools.partial(_certify, quick)
  if min(workers, len(rows)) < 2:
    yield from map(certify, rows)
    return
  spawn = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(workers, spawn, initializer=_start) as pool:
    yield from pool.map(certify, rows)


def _start() -> None:
  jax.config.update("jax_num_cpu_devices", DEVICES)


def _certify(quick: bool, row: str) -> Certificate:
  variant = spec.parse(row)
  certificate = battery.certify(variant, battery.case_of(variant), quick=quick)
  jax.clear_caches()  # programs of one variant serve no other
  return certificate
