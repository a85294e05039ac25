"""Every variant of the lab keeps its claims; what the battery says is read by people, machines and the README.

A variant whose certificate is kept (`attention_lab/certify/certified.json`) and still holds is asked for the core of
its claims alone; the others, for all of them in full. `pytest -m long` proves all of them in full.
"""

import dataclasses
import json
import re
import sys
import textwrap

import jax
import pytest

from attention_lab.attention import spec
from attention_lab.attention.variants.softmax import Softmax
from attention_lab.certify import battery, certified, leaks, report
from attention_lab.certify.finding import FAILED, NOT_CLAIMED, NOT_GIVEN, PROVED, Certificate, Finding

ROWS = battery.specs()

THIRD_PARTY = '''
  """A mean of the values."""
  import dataclasses
  from attention_lab.attention.base import Attention, Claims
  import jax.numpy as jnp

  @dataclasses.dataclass(frozen=True)
  class Mine(Attention):
    k: float = 2.0  # factor of the mean

    def claims(self):
      return Claims(cross=True, decode=False, exactness="other", time_exponent=1, memory_exponent=1)

    def attend(self, params, q, k, v, call):
      mean = self.k * jnp.mean(v, axis=1, keepdims=True)
      return jnp.broadcast_to(jnp.repeat(mean, q.shape[2] // v.shape[2], axis=2), (*q.shape[:3], v.shape[3]))
'''


@pytest.fixture
def _forget_programs():
  """Programs of one variant serve no other."""
  yield
  jax.clear_caches()


def statuses(certificate):
  return {finding.claim: finding.status for finding in certificate.findings}


@pytest.mark.usefixtures("_forget_programs")
@pytest.mark.parametrize(("row", "case"), ROWS, ids=[row for row, _ in ROWS])
def test_every_claim_of_a_changed_variant_and_the_core_of_any_other_is_proved(row, case):
  variant = spec.parse(row)
  certificate = certified.current(variant)
  if certificate is None:
    proved = battery.certify(variant, case)
    assert proved.count(PROVED) >= 11
  else:
    proved = battery.certify(variant, case, quick=True, claims=battery.CORE)
    assert statuses(proved).items() <= statuses(certificate).items()
  assert not proved.failures, report.text(proved)
  assert spec.parse(proved.spec) == variant


@pytest.mark.long
@pytest.mark.usefixtures("_forget_programs")
@pytest.mark.parametrize(("row", "case"), ROWS, ids=[row for row, _ in ROWS])
def test_a_kept_certificate_holds_and_is_what_the_full_battery_proves(row, case):
  kept_certificate = certified.current(spec.parse(row))
  assert kept_certificate, "run: python -m experiments.certify --attention=all --record"
  proved = battery.certify(spec.parse(row), case)
  assert not proved.failures, report.text(proved)
  assert statuses(proved) == statuses(kept_certificate)


def test_the_core_looks_for_leaks_in_every_variant_that_honours_a_pattern():
  assert set(battery.CORE) < set(battery.PROOFS)
  for row, _ in ROWS:
    masks = spec.parse(row).claims().masks
    patterns = masks & set(leaks.PAIRWISE)
    assert not patterns or "causal" in patterns or len(patterns) > 1 or {"q_valid", "kv_valid"} <= masks, row


def test_every_variant_has_a_case_and_every_case_a_variant():
  assert tuple(battery.cases()) == spec.names()
  assert battery.without_case() == ()


@pytest.mark.parametrize("row", [case.SPECS[0] for name, case in battery.cases().items() if name != "identity"])
def test_the_paper_of_a_variant_is_found_in_its_docstring(row):
  metadata = battery.metadata(spec.parse(row))
  assert re.fullmatch(r"[A-Z][^\n]+ (19|20)\d\d", metadata["paper"])
  assert metadata["url"].startswith("https://arxiv.org/abs/")


def test_a_variant_without_a_case_fails(monkeypatch):
  monkeypatch.setattr(battery, "cases", lambda: {"softmax": None})
  missing = battery.without_case()
  assert {certificate.spec for certificate in missing} == set(spec.names()) - {"softmax"}
  assert all("no case" in certificate.failures[0].detail for certificate in missing)


def test_a_third_partys_class_is_certified_without_an_oracle(tmp_path, monkeypatch):
  package = tmp_path / "strange_package"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "mine.py").write_text(textwrap.dedent(THIRD_PARTY))
  monkeypatch.syspath_prepend(tmp_path)
  variant = spec.parse("strange_package.mine:Mine(k=3.0)")
  certificate = battery.certify(variant, battery.case_of(variant), quick=True)
  sys.modules.pop("strange_package.mine")
  assert not certificate.failures, report.text(certificate)
  status = {finding.claim: finding.status for finding in certificate.findings}
  assert status["equals its oracle"] == status["gradient equals its oracle's"] == NOT_GIVEN
  assert status["honours causal"] == NOT_CLAIMED
  assert status["every hyper-parameter acts"] == status["refuses undeclared demands"] == PROVED
  assert certificate.spec == "strange_package.mine:Mine(k=3.0)"


def test_a_variant_that_crashes_is_a_finding_and_not_the_end_of_the_battery():
  @dataclasses.dataclass(frozen=True)
  class Broken(Softmax):
    def attend(self, params, q, k, v, call):
      raise ZeroDivisionError("in the variant")

  finding = battery.prove("examples are independent", Broken())
  assert finding.status == FAILED
  assert finding.detail == "ZeroDivisionError: in the variant"


def test_an_unknown_proof_is_refused_with_those_there_are():
  with pytest.raises(
    ValueError, match="no proof is named 'honors causal'; there are claims fit the class, equals its oracle"
  ):
    battery.prove("honors causal", Softmax())


@pytest.fixture(name="certificate")
def fixture_certificate():
  findings = (
    Finding("honours causal", PROVED, "126 pairs"),
    Finding("honours window", FAILED, "query 3 moves", "B1 T7", 4, "query 3, key 0", "import math\nprint(math.pi)"),
    Finding("honours prefix", NOT_CLAIMED, "refused"),
    Finding("equals its oracle", NOT_GIVEN, "no oracle"),
  )
  return Certificate("softmax(scale=0.3)", findings, battery.metadata(Softmax(scale=0.3)))


def test_the_text_shows_each_failure_with_its_counter_example_and_snippet(certificate):
  text = report.text(certificate)
  assert text.startswith(
    "softmax(scale=0.3): equality with an equation was not proved; 1 of 2 claims proved, 1 not given"
  )
  assert re.search(r"FAILED +honours window +query 3 moves", text)
  assert "counter-example: B1 T7; seed 4; query 3, key 0" in text
  assert "print(math.pi)" in text
  assert "not claimed: honours prefix" in text


def test_json_holds_every_finding(certificate):
  (row,) = json.loads(report.to_json([certificate]))
  assert row["spec"] == "softmax(scale=0.3)"
  assert [finding["status"] for finding in row["findings"]] == [PROVED, FAILED, NOT_CLAIMED, NOT_GIVEN]
  assert row["findings"][1]["seed"] == 4
  assert row["facts"]["url"] == "https://arxiv.org/abs/1706.03762"


def test_the_markdown_table_has_one_row_for_each_variant(certificate):
  note, _, head, rule, row = report.markdown([certificate]).splitlines()
  assert note == "`softmax(scale=0.3)`: equality with an equation was not proved."
  assert head.count("|") == rule.count("|") == row.count("|")
  assert row.startswith(
    "| `softmax(scale=0.3)` | [Vaswani et al. 2017](https://arxiv.org/abs/1706.03762) | all, bias | yes | T |"
  )
  assert row.endswith("| 1/2 |")
