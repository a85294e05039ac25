"""A certificate is kept until what it rests on changes: the sources of its variant, case and battery, or JAX."""

import functools
import importlib.metadata
import pathlib
import subprocess
import sys

import pytest

from attention_lab.attention import spec
from attention_lab.attention.variants.alibi import Alibi
from attention_lab.attention.variants.local import Local
from attention_lab.certify import battery, certified, mutation_operators
from attention_lab.certify.finding import FAILED, NOT_CLAIMED, PROVED, Certificate, Finding

PACKAGE = pathlib.Path(certified.__file__).parents[1]
CASES = battery.cases()
VARIANTS = {name: spec.parse(case.SPECS[0]) for name, case in CASES.items()}
FINGERPRINTS = {name: certified.fingerprint(variant, CASES[name]) for name, variant in VARIANTS.items()}
GATED = {"gated_delta", "gated_linear", "ssd"}  # among those that inherit the gated scan


def moved(file, edit):
  """The variants that have another fingerprint after the edit of one file of the package."""
  before = (PACKAGE / file).read_text()
  after = edit(before)
  assert after != before
  read = functools.cache(lambda path: after if path == PACKAGE / file else path.read_text())
  new = {name: certified.fingerprint(variant, CASES[name], read) for name, variant in VARIANTS.items()}
  return {name for name in VARIANTS if new[name] != FINGERPRINTS[name]}


def slip(text):
  """The source with its first mutant's slip."""
  return mutation_operators.changes(text)[0].source


def documented_otherwise(text):
  """The source with another docstring, another comment, and another layout."""
  head, docstring, code = text.split('"""', 2)
  return f'{head}"""{docstring} And more."""\n# A comment.\n\n{code}'


@pytest.mark.parametrize(
  ("file", "edit"),
  [
    ("attention/variants/alibi.py", lambda text: text.replace("2 ** (-8", "2 ** (-7")),
    ("attention/variants/alibi.py", lambda text: text.replace("2 * power", "3 * power")),
    ("certify/cases/alibi.py", slip),
  ],
)
def test_a_change_of_a_variants_own_files_moves_no_other_fingerprint(file, edit):
  assert moved(file, edit) == {"alibi"}


def test_a_change_of_a_family_moves_those_that_inherit_it():
  changed = moved("attention/families/gated_scan.py", slip)
  assert changed >= GATED
  assert not changed & {"softmax", "alibi", "local", "performer"}


def test_a_change_of_an_engine_moves_those_that_import_it_through_a_family():
  changed = moved("attention/engines/gated_delta_scan.py", slip)
  assert changed >= {"gated_delta", "delta_rule"}
  assert not changed & {"softmax", "alibi", "local"}
  assert "gated_delta_scan" not in (PACKAGE / "attention/variants/gated_delta.py").read_text()


@pytest.mark.parametrize(
  "file", ["attention/base.py", "attention/mask.py", "attention/cache.py", "certify/leaks.py", "certify/oracle.py"]
)
def test_a_change_of_the_interface_or_of_the_battery_moves_all(file):
  assert moved(file, slip) == set(VARIANTS)


@pytest.mark.parametrize("file", ["attention/variants/alibi.py", "attention/base.py", "certify/leaks.py"])
def test_docstrings_comments_and_layout_move_none(file):
  assert moved(file, documented_otherwise) == set()


def test_another_version_of_jax_moves_all(monkeypatch):
  monkeypatch.setattr(importlib.metadata, "version", lambda package: "99.0")
  assert not {certified.fingerprint(variant, CASES[name]) for name, variant in VARIANTS.items()} & {
    *FINGERPRINTS.values()
  }


def test_a_composed_layer_rests_on_its_mechanisms_and_their_cases():
  mixture = spec.parse("conv(3)>(linear+softmax)>norm")
  before = certified.fingerprint(mixture, battery.case_of(mixture))
  for file, moves in (
    ("attention/variants/linear.py", True),
    ("certify/cases/softmax.py", True),
    ("attention/composed.py", True),
    ("certify/composed_case.py", True),
    ("attention/variants/alibi.py", False),
  ):
    path = PACKAGE / file
    read = functools.cache(lambda other, path=path: slip(other.read_text()) if other == path else other.read_text())
    assert (certified.fingerprint(mixture, battery.case_of(mixture), read) != before) == moves, file


def test_the_variants_and_cases_of_others_are_no_part_of_a_fingerprint():
  names = certified.sources((Alibi.__module__, CASES["alibi"].__name__, battery.__name__))
  of_one = {name for name in names if ".variants." in name or ".cases." in name}
  assert of_one == {"attention_lab.attention.variants.alibi", "attention_lab.certify.cases.alibi"}
  assert {"attention_lab.attention.engines.flash.forward", "attention_lab.certify.leaks"} < set(names)


def certificate(variant, *findings):
  return Certificate(spec.to_string(variant), findings, battery.metadata(variant))


HOLDS = Finding("honours causal", PROVED, "126 pairs")
DECLINED = Finding("honours bias", NOT_CLAIMED, "refuses a bias")
FAILS = Finding("honours window", FAILED, "query 3 moves", "B1 T7")


def test_a_recorded_certificate_comes_back_until_a_source_changes(tmp_path, monkeypatch):
  path = tmp_path / "certified.json"
  assert certified.current(Alibi(), path) is None
  made = certificate(Alibi(), HOLDS, DECLINED)
  certified.Recorder([Alibi()], path).add(made)
  assert certified.current(Alibi(), path) == made
  assert certified.current(Alibi(scale=0.3), path) is None
  assert certified.proofs("alibi", path) == {"honours causal": "126 pairs"}
  monkeypatch.setattr(certified, "fingerprint", lambda variant, case: "another")
  assert certified.current(Alibi(), path) is None
  assert certified.recorded(Alibi(), path) == made


def test_a_failure_takes_a_certificate_out_of_the_file_and_leaves_the_others(tmp_path):
  path = tmp_path / "certified.json"
  recorder = certified.Recorder([Alibi(), Local(window=3)], path)
  recorder.add(certificate(Local(window=3), HOLDS))
  recorder.add(certificate(Alibi(), HOLDS))
  assert list(certified.read(path)) == ["alibi", "local(window=3)"]
  recorder.add(certificate(Alibi(), HOLDS, FAILS))
  assert list(certified.read(path)) == ["local(window=3)"]


def test_only_specs_of_cases_are_recorded(tmp_path):
  with pytest.raises(ValueError, match=r"only specs of certify/cases are recorded: leave local\(window=9\) out"):
    certified.Recorder([Alibi(), Local(window=9)], tmp_path / "certified.json")


def test_every_entry_of_the_file_is_a_spec_of_a_case_without_a_failure():
  specs = {spec.to_string(spec.parse(row)) for row, _ in battery.specs()}
  entries = certified.read()
  assert entries.keys() <= specs
  for entry in entries.values():
    assert set(entry) == {"fingerprint", "proved", "not claimed", "not given", "not run"}
    assert not entry["not run"].keys() & set(battery.CORE)


def test_a_quick_look_is_not_recorded():
  command = [sys.executable, "-m", "experiments.certify", "--attention=alibi", "--record", "--quick"]
  result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=PACKAGE.parent)
  assert result.returncode == 2
  assert "leave --quick and --mutate out" in result.stderr
