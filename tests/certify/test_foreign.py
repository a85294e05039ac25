"""Functions from outside: sound ones fail nothing, Long Range Arena's six are found, and an oracle is taken along."""

import json
import re

import foreign_functions
import jax
import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.certify import battery, report
from attention_lab.certify.finding import FAILED, NOT_ASKED, NOT_GIVEN, PROVED, Finding
from attention_lab.certify.foreign import Foreign

NAME = foreign_functions.__name__
CASE = battery.oracle_case(f"{NAME}:sinkhorn_oracle")
SOUND = (
  ("jax.nn:dot_product_attention", "supports_gqa=True"),
  ("flax.nnx:dot_product_attention", ""),
  ("flax.linen:dot_product_attention", ""),
  (f"{NAME}:numpy_softmax", ""),
  (f"{NAME}:numpy_linear", ""),
  (f"{NAME}:causal_flag", ""),
)
ARENA = {
  "local": ("receptive field is as declared", r"query \d (never )?reads key \d"),
  "sinkhorn": ("equals its oracle", "query"),
  "linear": ("padding equals truncation", "padding against truncation"),
  "linformer": ("honours kv_valid", "which 'kv_valid' hides"),
  "reformer": ("honours kv_valid", "which 'kv_valid' hides"),
  "performer": ("honours bias", "a bias of .* changes nothing"),
}
DAILY = (
  "claims fit the class",
  "honours causal",
  "honours kv_valid",
  "padding equals truncation",
  "extend in any split",
)


@pytest.fixture(autouse=True)
def _as_at_home():
  with jax.numpy_rank_promotion("allow"):
    yield
  jax.clear_caches()


@pytest.mark.parametrize(("function", "claimed"), SOUND)
def test_a_sound_function_fails_no_claim_that_is_asked_daily(function, claimed):
  certificate = battery.certify(Foreign(function, claimed), None, quick=True, claims=(*DAILY, "golden table"))
  assert not certificate.failures, report.text(certificate)


@pytest.mark.long
@pytest.mark.parametrize(("function", "claimed"), SOUND)
def test_a_sound_function_fails_no_claim_at_all(function, claimed):
  certificate = battery.certify(Foreign(function, claimed))
  assert not certificate.failures, report.text(certificate)
  assert certificate.count(PROVED) >= 9
  assert certificate.count(NOT_ASKED) >= 7


@pytest.mark.parametrize("name", ARENA)
def test_a_defect_of_long_range_arena_is_found_in_a_function(name):
  claim, message = ARENA[name]
  finding = battery.prove(claim, Foreign(f"{NAME}:arena_{name}", ""), CASE, quick=True)
  assert finding.status == FAILED
  assert re.search(message, f"{finding.detail}; {finding.position}"), finding.detail


@pytest.mark.parametrize(("name", "claim"), [("local", ARENA["local"][0]), ("sinkhorn", ARENA["sinkhorn"][0])])
def test_the_same_function_without_the_defect_keeps_the_claim(name, claim):
  finding = battery.prove(claim, Foreign(f"{NAME}:{name}", ""), CASE, quick=True)
  assert finding.status == PROVED, finding.detail


def test_what_a_function_cannot_be_asked_is_listed_as_not_asked():
  claims = ("honours causal", "state in T", "time in T", "bfloat16 is near float32")
  certificate = battery.certify(Foreign(f"{NAME}:numpy_softmax", ""), None, quick=True, claims=claims)
  status = {finding.claim: finding.status for finding in certificate.findings}
  assert status == dict.fromkeys(claims, NOT_ASKED) | {"honours causal": PROVED}
  assert "not asked  state in T" in report.text(certificate)
  jax_function = battery.prove("time in T", Foreign("jax.nn:dot_product_attention", "time_exponent=2"), quick=True)
  assert jax_function.status == PROVED


def test_a_function_is_a_variant_that_a_spec_names():
  variant = Foreign("jax.nn:dot_product_attention", "supports_gqa=True")
  assert spec.parse(spec.to_string(variant)) == variant
  q = jax.random.normal(jax.random.key(0), (2, 5, 4, 3))
  np.testing.assert_allclose(variant({}, q, q, q), spec.parse("softmax")({}, q, q, q), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
  ("function", "claimed", "message"),
  [
    ("no_such_module:f", "", "No module named 'no_such_module'"),
    ("jax.nn:dot_product_atention", "", "did you mean 'dot_product_attention'"),
    ("jax.nn:relu", "", "cannot be called as f(q, k, v)"),
    ("jax.nn:dot_product_attention", "gqa=True", "claims gqa; there are masks, "),
    ("jax.nn:dot_product_attention", "supports_gqa", "claims are written as in"),
    (f"{NAME}:SORT", "", "is no function"),
  ],
)
def test_a_function_that_cannot_be_examined_is_refused_in_one_line(function, claimed, message):
  with pytest.raises(ValueError, match=re.escape(message)):
    Foreign(function, claimed)


def test_a_certificate_without_an_oracle_says_first_that_no_equation_was_proved():
  function = Foreign(f"{NAME}:numpy_softmax", "")
  sentence = "equality with an equation was not proved"
  certificate = battery.certify(function, None, quick=True, claims=("equals its oracle", "honours causal"))
  assert certificate.findings[0].status == NOT_GIVEN
  assert sentence in report.text(certificate).splitlines()[0]
  assert sentence in report.markdown([certificate]).splitlines()[0]
  assert next(iter(json.loads(report.to_json([certificate]))[0].items())) == ("equation", sentence)


def test_an_oracle_of_somebodys_own_proves_equality_and_goes_into_the_snippet():
  variant, name = spec.parse("softmax"), "attention_lab.certify.cases.softmax:oracle"
  case = battery.oracle_case(name)
  certificate = battery.certify(variant, case, quick=True, claims=("equals its oracle",))
  assert certificate.equation
  assert "not proved" not in report.text(certificate)
  (wrong,) = battery.certify(spec.parse("sigmoid"), case, quick=True, claims=("equals its oracle",)).failures
  assert f"battery.oracle_case({name!r})" in wrong.snippet
  scope = {}
  exec(wrong.snippet, scope)
  assert isinstance(scope["finding"], Finding)
  assert scope["finding"].status == FAILED


def test_an_oracle_with_other_arguments_is_refused():
  with pytest.raises(ValueError, match=re.escape("must take (variant, params, example)")):
    battery.oracle_case("math:atan2")
