"""The outcome of one mutant: the claim that kills it, why it is equivalent, or what is known of a survivor."""

import contextlib
import dataclasses
import functools
import importlib
import itertools
import signal
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from attention_lab.attention.base import Attention
from attention_lab.certify import battery, hlo_equal, settings
from attention_lab.certify.mutation_operators import REACHED, Change
from attention_lab.certify.oracle import Example
from attention_lab.certify.under_test import VariantUnderTest

KILLED, SURVIVED, EQUIVALENT = "killed", "survived", "equivalent"
_FIXED, _LIMITS = "fixed parameters are the paper's", "illegal settings are refused"
_CHEAP = frozenset({_FIXED, _LIMITS})  # they compile little or nothing
_FIRST = (
  _FIXED,
  "equals its oracle",
  "losses are the paper's",
  "gradient equals its oracle's",
  "every hyper-parameter acts",
  "receptive field is as declared",
)
_BRIEF = 3  # programs that are compared at settings near by
_START = 30.0  # seconds of the processor for a mutant's import and first parameters; more is a kill
_SECONDS, _FEW, _TIMES = 20.0, 4.0, 5.0  # the same for a claim, a cheap one; so many times the original's, on top


class _Reached:
  """A function that returns what it takes, and knows whether it was called."""

  called = False

  def __call__(self, value: Any) -> Any:
    self.called = True
    return value


_COUNTER = itertools.count()  # names of mutants' modules


@dataclasses.dataclass(frozen=True)
class Outcome:
  """The fate of one mutant."""

  line: int
  operator: str
  before: str
  after: str
  status: str  # killed, survived, equivalent
  reason: str  # the claim that kills it, why it is equivalent, or what is known of a survivor


class Original:
  """A variant as it is, with what it proves; made once for all its mutants."""

  changed: dict[str, Any]  # the field in which it differs from the setting that is examined

  def __init__(self, subject: VariantUnderTest, **changed: Any):
    self.subject, self.changed = subject, changed
    self.known: dict[str, bool] = {}
    self.seconds: dict[str, float] = {}
    self.programs = hlo_equal.Programs(subject)

  def proves(self, claim: str) -> bool:
    """True if the claim is proved of the original; how long that takes is noted."""
    if claim not in self.known:
      start = time.process_time()
      self.known[claim] = not _fails(claim, self.subject)
      self.seconds[claim] = time.process_time() - start
    return self.known[claim]

  def refutes(self, claim: str, mutant: VariantUnderTest) -> str:
    """The claim, if it is proved of the original and not of the mutant in a multiple of the time; else ""."""
    if not self.proves(claim):
      return ""
    killer = claim + "".join(f" with {name}={value!r}" for name, value in self.changed.items())
    try:
      with limited((_FEW if claim in _CHEAP else _SECONDS) + _TIMES * self.seconds[claim]):
        return killer if _fails(claim, mutant) else ""
    except TimeoutError:
      return f"{killer} (out of time)"

  @functools.cached_property
  def neighbours(self) -> tuple["Original", ...]:
    """The class with another value of each field that is not about speed alone."""
    variant, case = self.subject.variant, self.subject.case
    fields = [field for field in dataclasses.fields(variant) if field.name not in settings.SPEED_ONLY]
    others = {field.name: next(settings.others(self.subject, field, variant), None) for field in fields}
    changed = [{name: value} for name, value in others.items() if value is not None]
    return tuple(Original(_subject(dataclasses.replace(variant, **field), case), **field) for field in changed)

  def rival(self, module: types.ModuleType) -> VariantUnderTest:
    """The same settings of the mutant's class."""
    variant = self.subject.variant
    arguments = {field.name: getattr(variant, field.name) for field in dataclasses.fields(variant) if field.init}
    return _subject(getattr(module, type(variant).__name__)(**arguments), self.subject.case)


def original(variant: Attention, case: Any) -> Original:
  """A variant with its case, or None, whose oracle keeps its answers."""
  return Original(_subject(variant, case and _remembering(case)))


def outcome(change: Change, originals: list[Original]) -> Outcome:
  """Whether one mutant is killed, survives or is equivalent; originals: settings of the one class."""
  described = (change.line, change.operator, change.before, change.after)
  with contextlib.ExitStack() as stack:
    try:
      name = type(originals[0].subject.variant).__module__
      with limited(_START):
        module = stack.enter_context(imported(change.source, name))
        pairs = [(original, original.rival(module)) for original in originals]
        moved = change.function == "init" and all(hlo_equal.starts_elsewhere(a.subject, b) for a, b in pairs)
    except Exception as error:  # a mutant may raise anything
      return Outcome(*described, KILLED, f"raises {type(error).__name__}")
    if moved:
      return Outcome(*described, EQUIVALENT, "only the initial values of trained parameters change")
    return Outcome(*described, *_examined(change, pairs, module))


def _examined(
  change: Change, pairs: list[tuple[Original, VariantUnderTest]], module: types.ModuleType
) -> tuple[str, str]:
  """(status, reason) of one mutant."""
  first = (_LIMITS, *_FIRST) if change.guard or change.function == "init" else _FIRST
  killer = _killer(first, pairs)
  if killer:
    return KILLED, killer
  same = all(original.programs.equal(mutant) for original, mutant in pairs)
  if same and getattr(module, REACHED).called and not change.guard:
    near = [(neighbour, neighbour.rival(module)) for original, _ in pairs for neighbour in original.neighbours]
    killer = _killer(("equals its oracle",), near)
    if killer:
      return KILLED, killer
    if all(original.programs.equal(mutant, first=_BRIEF) for original, mutant in near):
      return EQUIVALENT, "the programs are the original's at all shapes of the battery, and near its settings"
  killer = "" if same and change.guard else _killer([claim for claim in battery.PROOFS if claim not in first], pairs)
  if killer:
    return KILLED, killer
  if change.guard:
    return SURVIVED, "a check of arguments: no limit in its case, and no call of the battery, tells"
  if not getattr(module, REACHED).called:
    return SURVIVED, "not evaluated in any call of the battery"
  if not all(hlo_equal.alike(original.subject, mutant) for original, mutant in pairs):
    return SURVIVED, "a fixed parameter starts otherwise, and its case does not know its value"
  error = max(original.programs.distance(mutant) for original, mutant in pairs)
  return SURVIVED, f"another program, its outputs within {error:.0e} of the original's"


def _killer(claims: Iterable[str], pairs: list[tuple[Original, VariantUnderTest]]) -> str:
  """The first claim that an original proves and its mutant does not, or ""."""
  verdicts = (original.refutes(claim, mutant) for claim in claims for original, mutant in pairs)
  return next(filter(None, verdicts), "")


def _fails(claim: str, subject: VariantUnderTest) -> bool:
  """True unless the claim is proved."""
  try:
    battery.PROOFS[claim](subject)
  except TimeoutError:
    raise
  except Exception:  # refuted, undecided, or whatever a mutant raises
    return True
  return False


def _subject(variant: Attention, case: Any) -> VariantUnderTest:
  """A quick test, with an `init` that is not compiled: its operations are in the cache of the mutants before."""
  subject = VariantUnderTest(variant, case, quick=True)
  object.__setattr__(subject, "init", variant.init)
  return subject


def _remembering(case: Any) -> types.SimpleNamespace:
  """The case, with an oracle that keeps its answers: all mutants of a file are asked the same."""
  known: dict[Any, np.ndarray] = {}

  def oracle(variant: Attention, params: Any, example: Example) -> np.ndarray:
    fields = [getattr(example, field.name) for field in dataclasses.fields(example)]
    leaves, tree = jax.tree.flatten((params, fields))
    key = (repr(dataclasses.astuple(variant)), tree, *((np.shape(leaf), np.asarray(leaf).tobytes()) for leaf in leaves))
    if key not in known:
      known[key] = case.oracle(variant, params, example)
    return known[key]

  public = {name: value for name, value in vars(case).items() if not name.startswith("_")}
  return types.SimpleNamespace(**public | {"oracle": oracle})


@contextlib.contextmanager
def imported(source: str, name: str) -> Iterator[types.ModuleType]:
  """The changed text of the module `name` as a module of its own, known to `sys.modules` inside the block."""
  origin = importlib.import_module(name)
  module = types.ModuleType(f"{name}__mutant{next(_COUNTER)}")

  reached = _Reached()
  vars(module).update({"__file__": origin.__file__, "__package__": origin.__package__, REACHED: reached})
  sys.modules[module.__name__] = module
  try:
    exec(compile(source, str(origin.__file__), "exec"), vars(module))
    yield module
  finally:
    del sys.modules[module.__name__]


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
  """Raises TimeoutError in a loop of Python's that takes more of the processor's time, where signals can be had."""
  if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGPROF"):
    yield
    return

  def stop(*_: Any) -> None:
    raise TimeoutError

  signal.signal(signal.SIGPROF, stop)
  signal.setitimer(signal.ITIMER_PROF, seconds)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.signal(signal.SIGPROF, signal.SIG_IGN)  # one that is still on its way must not end the process
