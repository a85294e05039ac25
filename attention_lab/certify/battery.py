"""The battery: one generic set of proofs for every variant, the lab's own and a stranger's.

certificate = battery.certify(spec.parse("local(window=3)"), battery.case_of("local"))
finding = battery.prove("padding equals truncation", spec.parse("my_pkg.my_file:Mine(k=3)"))
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from types import ModuleType
from typing import Any

from attention_lab.attention import spec, variants
from attention_lab.attention.base import Attention
from attention_lab.certify import (
  approximation,
  cost,
  decoding,
  demands,
  equality,
  leaks,
  losses,
  maps,
  numerics,
  parameters,
  settings,
  sharding,
)
from attention_lab.certify import (
  cases as case_files,
)
from attention_lab.certify.finding import FAILED, PROVED, Certificate, Finding, Refuted, Undecided
from attention_lab.certify.under_test import VariantUnderTest

_MODULES = (
  equality,
  leaks,
  demands,
  maps,
  decoding,
  numerics,
  cost,
  sharding,
  approximation,
  parameters,
  settings,
  losses,
)
PROOFS: dict[str, Callable[[VariantUnderTest], str]] = {
  claim: proof for module in _MODULES for claim, proof in module.PROOFS.items()
}


def certify(variant: Attention, case: ModuleType | None = None, quick: bool = False) -> Certificate:
  """Every proof of `variant`; case: its file in `certify/cases`, None without an oracle; quick: less of each."""
  subject = VariantUnderTest(variant, case, quick)
  return Certificate(subject.spec, tuple(_finding(claim, subject) for claim in PROOFS), facts(variant))


def prove(claim: str, variant: Attention, case: ModuleType | None = None, quick: bool = False) -> Finding:
  """One proof alone; raises ValueError if there is none of this name."""
  if claim not in PROOFS:
    raise ValueError(f"no proof is named '{claim}'; there are {', '.join(PROOFS)}")
  return _finding(claim, VariantUnderTest(variant, case or case_of(variant), quick))


def cases() -> dict[str, ModuleType]:
  """The case of each variant, by file name."""
  found = sorted(module.name for module in pkgutil.iter_modules(case_files.__path__))
  return {name: importlib.import_module(f"{case_files.__name__}.{name}") for name in found}


def case_of(variant: Attention) -> ModuleType | None:
  """The case of one of the lab's own variants, None for a stranger's."""
  package, _, name = type(variant).__module__.rpartition(".")
  return cases().get(name) if package == variants.__name__ else None


def without_case() -> tuple[Certificate, ...]:
  """A failed certificate for each file in `variants` that has none in `cases`."""
  missing = [name for name in spec.names() if name not in cases()]
  detail = "no case: add certify/cases/{}.py with SPECS and an oracle"
  return tuple(Certificate(name, (Finding("has a case", FAILED, detail.format(name)),)) for name in missing)


def facts(variant: Attention) -> dict[str, Any]:
  """What the table of variants says about one: paper, title and claims."""
  text = inspect.getdoc(inspect.getmodule(type(variant))) or ""
  paper = re.search(r"(?:\(|^)([A-Z][^()\n]*?(?:19|20)\d\d)[^()]*?\s+(https?://[^\s,()]+[^\s,().])", text, re.MULTILINE)
  claims = variant.claims()
  return {
    "title": re.split(r"[:(,.]", text, maxsplit=1)[0].strip(),
    "paper": paper[1] if paper else "",
    "url": paper[2] if paper else "",
    **{name: getattr(claims, name) for name in claims.__dataclass_fields__},
    "masks": sorted(claims.masks),
  }


def _finding(claim: str, subject: VariantUnderTest) -> Finding:
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
  lines = [
    "from attention_lab.attention import spec",
    "from attention_lab.certify import battery",
    f"finding = battery.prove({claim!r}, spec.parse({subject.spec!r}){quick})",
    "print(finding.status, finding.detail, finding.shape, finding.position)",
  ]
  return "\n".join(lines)
