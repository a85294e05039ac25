"""The battery fails each of the planted faults, and names the right claim."""

import types

import faults
import pytest

from attention_lab.attention.variants.local import Local
from attention_lab.certify import battery
from attention_lab.certify.finding import FAILED


def _name(value):
  return "" if value is None or isinstance(value, types.ModuleType) else str(value)


CASES = battery.cases()
FAULTS = [
  (faults.StridedLocal(window=3), "equals its oracle", CASES["local"]),
  (faults.WideLocal(window=3), "equals its oracle", CASES["local"]),
  (faults.WideMask(), "honours window", None),
  (faults.DeafLinear(chunk=4), "honours kv_valid", None),
  (faults.DeafLinear(chunk=4), "padding equals truncation", None),
  (faults.Endless(chunk=4), "honours segments", None),
  (faults.Endless(chunk=4), "packed equals separate", None),
  (faults.Restarted(), "extend in any split", None),
  (faults.WideNormaliser(), "honours causal", None),
  (faults.WideNormaliser(), "padding equals truncation", None),
  (faults.TopK(), "honours causal", None),
  (faults.BatchMaximum(), "examples are independent", None),
  (faults.Interleaved(), "groups of heads are blocks", None),
  (faults.Transposed(), "rows of the map sum to 1", None),
  (faults.Undefined(), "nothing readable gives zeros", None),
  (faults.Stopped(), "gradient equals its oracle's", CASES["softmax"]),
  (faults.Deaf(), "every hyper-parameter acts", None),
  (faults.Silent(), "refuses undeclared demands", None),
  (faults.Cheap(), "time in T", None),
  (faults.Dense(), "memory in T", None),
  (faults.Shared(), "state has the batch first", None),
  (faults.Squared(), "class in the values", None),
]


@pytest.mark.parametrize(("variant", "claim", "case"), FAULTS, ids=_name)
def test_a_planted_fault_is_found_under_its_claim(variant, claim, case):
  finding = battery.prove(claim, variant, case, quick=True)
  assert finding.status == FAILED, f"{finding.status}: {finding.detail}"
  assert "Error" not in finding.detail


@pytest.mark.parametrize("claim", sorted({claim for _, claim, case in FAULTS if case is None} - {"memory in T"}))
def test_without_a_fault_the_same_claim_holds(claim):
  finding = battery.prove(claim, faults.Dense(), quick=True)
  assert finding.status != FAILED, finding.detail


def test_a_stopped_gradient_does_not_touch_the_output():
  finding = battery.prove("equals its oracle", faults.Stopped(), CASES["softmax"], quick=True)
  assert finding.status != FAILED, finding.detail


def test_a_failure_comes_with_a_counter_example_and_a_snippet_that_runs(capsys):
  finding = battery.prove("equals its oracle", faults.WideLocal(window=3), CASES["local"], quick=True)
  assert finding.shape.startswith("B2 T")
  assert finding.seed >= 0
  assert finding.position.startswith("example 0, query")
  local = battery.prove("honours causal", Local(window=3), quick=True)
  snippet = battery._snippet("honours causal", battery.Subject(Local(window=3), quick=True))
  assert len(snippet.splitlines()) <= 6
  exec(snippet, {})
  assert capsys.readouterr().out.startswith(f"{local.status} {local.detail}")
