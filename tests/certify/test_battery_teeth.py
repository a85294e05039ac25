"""The battery fails each of the planted faults, and names the right claim."""

import re

import faults
import faults_arena
import faults_layers
import faults_numbers
import faults_state
import faults_strangers
import faults_textbook
import pytest

from attention_lab.attention.variants.local import Local
from attention_lab.certify import battery
from attention_lab.certify.finding import FAILED, PROVED

FILES = (faults, faults_arena, faults_textbook, faults_state, faults_numbers, faults_strangers, faults_layers)
BITES = [bite for file in FILES for bite in file.BITES]
WITHOUT_FAULT = sorted({bite.claim for bite in faults.BITES + faults_state.BITES if bite.case is None} - {"state in T"})


def name(bite):
  fault = bite.variant.fault if isinstance(bite.variant, faults_layers.Planted) else type(bite.variant)
  return f"{fault.__name__}-{bite.claim}"


@pytest.mark.parametrize("bite", BITES, ids=name)
def test_a_fault_is_found_under_its_claim(bite):
  finding = battery.prove(bite.claim, bite.variant, bite.case, quick=bite.quick)
  assert finding.status == FAILED, f"{finding.status}: {finding.detail}"
  assert re.search(bite.says, f"{finding.detail}; {finding.shape}; {finding.position}"), finding


@pytest.mark.parametrize("bite", [bite for bite in BITES if bite.holds], ids=name)
def test_what_the_fault_leaves_true_is_still_proved(bite):
  finding = battery.prove(bite.holds, bite.variant, bite.case, quick=True)
  assert finding.status == PROVED, f"{finding.status}: {finding.detail}"


@pytest.mark.parametrize("claim", WITHOUT_FAULT)
def test_without_a_fault_the_same_claim_holds(claim):
  finding = battery.prove(claim, faults.Dense(), quick=True)
  assert finding.status != FAILED, finding.detail


@pytest.mark.long
@pytest.mark.parametrize(
  ("variant", "claims"),
  [
    (faults_strangers.LastOfChunk(), {"long prefixes stand alone", "tokens in any order", faults_strangers.PACKED}),
    (faults_strangers.MissedBorder(), {faults_strangers.PACKED}),
    (faults_strangers.DroppedTogether(), {"randomness is independent"}),
    (faults_strangers.LowSums(weighted=False), {"bfloat16 over 1,000 keys"}),
  ],
)
def test_the_whole_battery_fails_a_stranger_by_the_claims_that_its_fault_breaks_and_by_no_other(variant, claims):
  failures = {finding.claim for finding in battery.certify(variant).failures}
  assert failures - {"memory in T"} == claims  # the matrix of weights is T × T


def test_every_proof_has_a_fault_that_it_finds():
  assert set(battery.PROOFS) - {bite.claim for bite in BITES} == {"sharded extend equals unsharded"}


@pytest.mark.parametrize("claim", ["equals its oracle", "honours kv_valid", "padding equals truncation"])
def test_sinkhorn_with_the_right_reshape_keeps_its_claims(claim):
  finding = battery.prove(claim, faults_arena.Sinkhorn(), faults_arena.SINKHORN, quick=True)
  assert finding.status == PROVED, finding.detail


def test_a_failure_comes_with_a_counter_example_and_a_snippet_that_runs(capsys):
  finding = battery.prove("equals its oracle", faults.WideLocal(window=3), faults.LOCAL, quick=True)
  assert finding.shape.startswith("B2 T")
  assert finding.seed >= 0
  assert finding.position.startswith("example 0, query")
  local = battery.prove("honours causal", Local(window=3), quick=True)
  snippet = battery._snippet("honours causal", battery.VariantUnderTest(Local(window=3), quick=True))
  assert len(snippet.splitlines()) <= 6
  exec(snippet, {})
  assert capsys.readouterr().out.startswith(f"{local.status} {local.detail}")
