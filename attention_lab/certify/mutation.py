"""Mutants of a variant's own file, and the share of them that the quick battery kills.

for score in mutation.scores([(spec.parse("local(window=3)"), battery.case_of(...))]):
  print(mutation.text(score))

A mutant is killed by the first claim that the original proves and the mutant does not; raising at import or in a call
kills it too. It is equivalent, and does not count, only where that is proved: the lowered programs of output, gradient
and `extend` are the original's, character by character, over the full pool of shapes; or nothing but the initial
values of trained parameters changes, of which no claim speaks. All others survive, and are listed.
"""

import concurrent.futures
import dataclasses
import importlib
import inspect
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any

import jax

from attention_lab.attention.base import Attention
from attention_lab.attention.composed import Composed
from attention_lab.attention.head_mixture import HeadMixture
from attention_lab.certify import battery, mutants, mutation_operators
from attention_lab.certify.mutants import EQUIVALENT, KILLED, SURVIVED, Outcome

Row = tuple[Attention, Any]  # a variant and its case, or None
SHARE = 0.9  # of the mutants, killed: below it the battery, or the file's case, is too weak


@dataclasses.dataclass(frozen=True)
class Score:
  """The mutants of one file."""

  spec: str
  outcomes: tuple[Outcome, ...]
  seconds: float = 0.0

  def count(self, status: str) -> int:
    """How many mutants ended so."""
    return sum(outcome.status == status for outcome in self.outcomes)

  @property
  def total(self) -> int:
    """Mutants that are not proved equivalent."""
    return len(self.outcomes) - self.count(EQUIVALENT)


def scores(rows: Iterable[Row], limit: int = 0, workers: int = 1) -> Iterator[Score]:
  """The score of each file that rows of (variant, case or None) name; limit: mutants of a file, 0 = all.

  Several settings of one class are examined together. With more workers files are shared by as many processes, cases
  must be modules that these can import, and scores come as they are ready. Raises ValueError for a mixture
  and a composed layer, which have no file of their own.
  """
  files: dict[type, list[Row]] = {}
  for variant, case in rows:
    if isinstance(variant, HeadMixture | Composed):
      kind = "a mixture of heads" if isinstance(variant, HeadMixture) else "a composed layer"
      raise ValueError(f"{kind} has no file of its own to mutate: name its mechanisms, separated by ';'")
    files.setdefault(type(variant), []).append((variant, case))
  if min(workers, len(files)) < 2:
    yield from (_score(same, limit) for same in files.values())
    return
  with battery.worker_processes(min(workers, len(files))) as pool:
    named = ([(variant, case and case.__name__) for variant, case in same] for same in files.values())
    pending = [pool.submit(_named_score, same, limit) for same in named]
    yield from (future.result() for future in concurrent.futures.as_completed(pending))


def _named_score(rows: list[tuple[Attention, str | None]], limit: int) -> Score:
  return _score([(variant, name and importlib.import_module(name)) for variant, name in rows], limit)


def _score(rows: list[Row], limit: int) -> Score:
  """The score of one file, examined with all these settings of its class."""
  start, kind = time.perf_counter(), type(rows[0][0])
  changes = mutation_operators.changes(inspect.getsource(sys.modules[kind.__module__]))
  originals = [mutants.original(variant, case) for variant, case in rows]
  outcomes = tuple(mutants.outcome(change, originals) for change in mutation_operators.spread(changes, limit))
  jax.clear_caches()
  specs = "; ".join(original.subject.spec for original in originals)
  return Score(specs, outcomes, time.perf_counter() - start)


def share(finished: Iterable[Score]) -> float:
  """Killed mutants of those that are not equivalent; 1 if there is none."""
  finished = list(finished)
  total = sum(score.total for score in finished)
  return sum(score.count(KILLED) for score in finished) / total if total else 1.0


def text(score: Score) -> str:
  """`local(window=3): killed 12 of 12 in 9 s`, and each survivor with its line, its change and its reason."""
  left_out = f", {score.count(EQUIVALENT)} equivalent left out" if score.count(EQUIVALENT) else ""
  lines = [f"{score.spec}: killed {score.count(KILLED)} of {score.total} in {score.seconds:.0f} s{left_out}"]
  for outcome in score.outcomes:
    if outcome.status == SURVIVED:
      lines += [f"  survived  line {outcome.line}, {outcome.operator}: {outcome.reason}"]
      lines += [f"    - {outcome.before}", f"    + {outcome.after}"]
  return "\n".join(lines)


def verdict(finished: Iterable[Score]) -> str:
  """The last line: totals over all files."""
  finished = list(finished)
  killed, total = (sum(counts) for counts in ([s.count(KILLED) for s in finished], [s.total for s in finished]))
  equivalent = sum(score.count(EQUIVALENT) for score in finished)
  return (
    f"{len(finished)} mutated: killed {killed} of {total}, {share(finished):.1%} ({equivalent} equivalent left out)"
  )


def to_json(finished: Iterable[Score]) -> str:
  """All scores as an indented JSON list, in the order of their specs."""
  rows = [
    {"spec": score.spec, "killed": score.count(KILLED), "total": score.total, "share": share([score])}
    | {"mutants": [dataclasses.asdict(outcome) for outcome in score.outcomes]}
    for score in sorted(finished, key=lambda score: score.spec)
  ]
  return json.dumps(rows, indent=2, ensure_ascii=False)
