"""The battery: one generic set of proofs for every variant, the lab's own and a third party's.

certificate = battery.certify(spec.parse("local(window=3)"), battery.case_of("local"))
finding = battery.prove("padding equals truncation", spec.parse("my_pkg.my_file:Mine(k=3)"))
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jax

from attention_lab.attention import spec
from attention_lab.attention.base import Attention
from attention_lab.attention.composed import Composed
from attention_lab.certify import cases as case_files
from attention_lab.certify import (
  composed_case,
  cost,
  decoding,
  demands,
  equality,
  gradients,
  interface,
  leaks,
  lengths,
  maps,
  numerics,
  odd_inputs,
  randomness,
  settings,
  sharding,
  sums,
)
from attention_lab.certify.finding import FAILED, NOT_ASKED, PROVED, Certificate, Finding, Refuted, Undecided
from attention_lab.certify.under_test import VariantUnderTest
from attention_lab.worker_processes import WorkerProcesses

_MODULES = (
  interface,
  equality,
  leaks,
  demands,
  maps,
  decoding,
  lengths,
  numerics,
  odd_inputs,
  gradients,
  sums,
  randomness,
  cost,
  sharding,
  settings,
)
PROOFS: dict[str, Callable[[VariantUnderTest], str]] = {
  claim: proof for module in _MODULES for claim, proof in module.PROOFS.items()
}


CORE = (
  "equals its oracle",
  "honours causal",
  "honours all constraints together",
  "padding equals truncation",
  "extend in any split",
  "extend of ragged rows",
)  # the claims that are proved again even of a variant whose sources have not changed since its certificate
cases = case_files.cases  # the case of each variant, by file name


def certify(
  variant: Attention, case: ModuleType | None = None, quick: bool = False, claims: Sequence[str] = tuple(PROOFS)
) -> Certificate:
  """The certificate of a variant.

  Args:
    variant: the instance to examine.
    case: its file in `certify/cases`, or a module like these; without one, what needs an oracle is not given.
    quick: fewer shapes and draws, and forward only where the full battery has gradients too.
    claims: the claims to examine, by their names in `PROOFS`.

  Returns:
    One finding for each claim, in the order given; whatever the variant raises is a finding too. Of claims that do
    not fit the class one finding speaks, and the others take them as withdrawn; it stands alone where no call at all
    can be made.
  """
  subject = VariantUnderTest(variant, case, quick)
  if interface.CLAIM not in claims:
    return Certificate(subject.spec, tuple(_finding(claim, subject) for claim in claims), metadata(variant))
  try:
    misfits = interface.misfits(subject)
  except Exception:  # not even a plain call: nothing else can be examined
    return Certificate(subject.spec, (_finding(interface.CLAIM, subject),))
  fit = _finding(interface.CLAIM, subject) if misfits else Finding(interface.CLAIM, PROVED, interface.FITS)
  changes = {name: value for misfit in misfits for name, value in misfit.changes.items()}
  rest = interface.withdrawn(subject, changes) if misfits else subject
  findings = tuple(fit if claim == interface.CLAIM else _finding(claim, rest) for claim in claims)
  return Certificate(subject.spec, findings, metadata(variant))


def prove(claim: str, variant: Attention, case: ModuleType | None = None, quick: bool = False) -> Finding:
  """The finding of one claim alone.

  Args:
    claim: its name in `PROOFS`.
    variant: the instance to examine.
    case: as in `certify`; None stands for the lab's own case of the variant, if it has one.
    quick: as in `certify`.

  Raises:
    ValueError: there is no claim of this name.
  """
  if claim not in PROOFS:
    raise ValueError(f"no proof is named '{claim}'; there are {', '.join(PROOFS)}")
  return _finding(claim, VariantUnderTest(variant, case or case_of(variant), quick))


def certificates(rows: Sequence[str], quick: bool, workers: int, oracle: str = "") -> Iterator[Certificate]:
  """The certificate of each spec, by several processes: compiling, which takes most of the time, uses one core.

  Args:
    rows: specs of single variants.
    quick: as in `certify`.
    workers: processes; with one, or one spec, all is done in this process.
    oracle: `my_pkg.my_file:function`, the oracle of every row; empty = those of the cases.

  Yields:
    Certificates in the order of `rows`, each as soon as it and those before it are ready.
  """
  certify_row = functools.partial(_certify_row, quick, oracle)
  if min(workers, len(rows)) < 2:
    yield from map(certify_row, rows)
    return
  with worker_processes(workers) as pool:
    yield from pool.map(certify_row, rows)


def worker_processes(workers: int) -> WorkerProcesses:
  """A pool of new Python processes, each with the devices that claims about sharding take."""
  return WorkerProcesses(workers, _start_worker)


def case_of(variant: Attention) -> ModuleType | None:
  """The case of one of the lab's own variants, or of layers composed of these; None for a third party's."""
  if not isinstance(variant, Composed):
    return case_files.case_of(variant)
  known = all(case_files.case_of(mechanism) for mechanism in composed_case.mechanisms(variant))
  return composed_case if known else None


def specs() -> tuple[tuple[str, ModuleType], ...]:
  """(spec, case) of all that is certified: those of each variant, and those of composed layers."""
  return tuple((row, case) for case in (*cases().values(), composed_case) for row in case.SPECS)


def oracle_case(name: str) -> ModuleType:
  """A case that has an oracle and nothing else.

  Args:
    name: `my_pkg.my_file:function`, a function `oracle(variant, params, example)` as those of `certify/cases` are.

  Returns:
    A module like these.

  Raises:
    ValueError: in one line, where it cannot be loaded or does not take these three arguments.
  """
  function = spec.load(name, "the oracle")
  try:
    inspect.signature(function).bind("variant", "params", "example")
  except (TypeError, ValueError) as error:
    raise ValueError(f"the oracle {name} must take (variant, params, example): {error}") from error
  case = ModuleType(name)
  vars(case).update(oracle=function)
  return case


def without_case() -> tuple[Certificate, ...]:
  """A failed certificate for each file in `variants` that has none in `cases`."""
  missing = [name for name in spec.names() if name not in cases()]
  detail = "no case: add certify/cases/{}.py with SPECS and an oracle"
  return tuple(Certificate(name, (Finding("has a case", FAILED, detail.format(name)),)) for name in missing)


def metadata(variant: Attention) -> dict[str, Any]:
  """What the table of variants says about one: paper, title and claims."""
  described = variant.mechanism if isinstance(variant, Composed) else variant  # parts stand around another's idea
  text = inspect.getdoc(inspect.getmodule(type(described))) or ""
  paper = re.search(r"(?:\(|^)([A-Z][^()\n]*?(?:19|20)\d\d)[^()]*?\s+(https?://[^\s,()]+[^\s,().])", text, re.MULTILINE)
  claims = variant.claims()
  return {
    "title": re.split(r"[:(,.]", text, maxsplit=1)[0].strip(),
    "paper": paper[1] if paper else "",
    "url": paper[2] if paper else "",
    **{name: getattr(claims, name) for name in claims.__dataclass_fields__},
    "masks": sorted(claims.masks),
  }


def _start_worker() -> None:
  jax.config.update("jax_num_cpu_devices", sharding.DEVICES)


def _certify_row(quick: bool, oracle: str, row: str) -> Certificate:
  variant = spec.parse(row)
  certificate = certify(variant, oracle_case(oracle) if oracle else case_of(variant), quick)
  jax.clear_caches()  # programs of one variant serve no other
  return certificate


def _finding(claim: str, subject: VariantUnderTest) -> Finding:
  unasked = getattr(subject.variant, "unasked", {})
  if claim in unasked:
    return Finding(claim, NOT_ASKED, unasked[claim])
  try:
    return Finding(claim, PROVED, PROOFS[claim](subject))
  except Undecided as undecided:
    return Finding(claim, undecided.status, undecided.reason)
  except Refuted as refuted:
    snippet = _snippet(claim, subject)
    return Finding(claim, FAILED, refuted.detail, refuted.shape, refuted.seed, refuted.position, snippet)
  except Exception as error:  # a variant may raise anything: that is a finding, not the end of the battery
    detail = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return Finding(claim, FAILED, detail, snippet=_snippet(claim, subject))


def _snippet(claim: str, subject: VariantUnderTest) -> str:
  quick = ", quick=True" if subject.quick else ""
  name = getattr(subject.case, "__name__", "")
  quick = f", battery.oracle_case({name!r})" + quick if ":" in name else quick
  lines = [
    "from attention_lab.attention import spec",
    "from attention_lab.certify import battery",
    f"finding = battery.prove({claim!r}, spec.parse({subject.spec!r}){quick})",
    "print(finding.status, finding.detail, finding.shape, finding.position)",
  ]
  return "\n".join(lines)
