"""Mutants: the small slips that are planted are those that are wanted, and the battery notices them."""

import ast
import json
import subprocess
import sys
import textwrap

import pytest

from attention_lab.attention import spec
from attention_lab.certify import battery, hlo_equal, mutants, mutation, mutation_operators
from attention_lab.certify.mutation import EQUIVALENT, KILLED, SURVIVED, Outcome, Score
from attention_lab.certify.under_test import VariantUnderTest

PLANTED = '''
  """A docstring with 1 < 2."""
  import numpy as np
  TABLE = (-1, 5)  # 7 < 8
  class Mine:
    k: int = 3
    def __post_init__(self):
      if self.k < 0:
        least = 3 - 3
        raise ValueError(f"k={self.k + 1} must be at least {least}: {0 + 0}")
    def claims(self):
      return 1 + 1
    def attend(self, a: "f32[1]", b, c):
      a = np.where(a > b, -a, np.cumsum(b, axis=0))
      return np.minimum(a + b, max(b * c, keepdims=True)) & stop_gradient(c)
'''

THIRD_PARTY = '''
  """A mean of the values, with a slip of its own: a check that nothing calls."""
  import dataclasses
  import jax.numpy as jnp
  from attention_lab.attention.base import Attention, Claims

  @dataclasses.dataclass(frozen=True)
  class Mine(Attention):
    k: float = 2.0  # factor of the mean

    def __post_init__(self):
      if self.k < -99:
        raise ValueError(f"k={self.k} must be at least -99")

    def claims(self):
      return Claims(cross=True, decode=False, exactness="other", time_exponent=1, memory_exponent=1)

    def attend(self, params, q, k, v, call):
      mean = -self.k * jnp.mean(v, axis=1, keepdims=True)
      return jnp.broadcast_to(jnp.repeat(mean, q.shape[2] // v.shape[2], axis=2), (*q.shape[:3], v.shape[3]))
'''


def endless():
  while True:
    pass


def row(text):
  variant = spec.parse(text)
  return variant, battery.case_of(variant)


def only(monkeypatch, wanted):
  """Restricts the mutants of a file to those wanted."""
  changes = mutation_operators.changes
  monkeypatch.setattr(mutation_operators, "changes", lambda source: tuple(filter(wanted, changes(source))))


@pytest.fixture(name="third_party")
def fixture_third_party(tmp_path, monkeypatch):
  package = tmp_path / "mutated_package"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "mine.py").write_text(textwrap.dedent(THIRD_PARTY))
  monkeypatch.syspath_prepend(tmp_path)
  yield tmp_path
  sys.modules.pop("mutated_package.mine", None)
  sys.modules.pop("mutated_package", None)


def test_a_file_with_planted_operators_yields_the_expected_mutants():
  mutants_of_file = mutation_operators.changes(textwrap.dedent(PLANTED).lstrip())
  shown = {(change.operator, change.after) for change in mutants_of_file}
  where, last = "a = np.where(a > b, -a, np.cumsum(b, axis=0))", "return np.minimum(a + b, max(b * c, keepdims=True)) "
  assert shown == {
    *(("constant", f"TABLE = {pair}") for pair in ("(-2, 5)", "(0, 5)", "(-1, 4)", "(-1, 6)")),
    ("sign", "TABLE = (1, 5)"),
    ("comparison", "if self.k <= 0:"),
    ("constant", "if self.k < -1:"),
    ("constant", "if self.k < 1:"),
    ("where", "a = (-a)"),
    ("comparison", where.replace(">", ">=")),
    ("sign", where.replace("-a", "a")),
    ("cumsum", where.replace("np.cumsum(b, axis=0)", "b")),
    ("constant", where.replace("=0", "=-1")),
    ("constant", where.replace("=0", "=1")),
    ("logic", last.replace("b * c", "b * c") + "| stop_gradient(c)"),
    ("minimum", last.replace("minimum", "maximum") + "& stop_gradient(c)"),
    ("arithmetic", last.replace("a + b", "a - b") + "& stop_gradient(c)"),
    ("minimum", last.replace("max", "min") + "& stop_gradient(c)"),
    ("arithmetic", last.replace("b * c", "b / c") + "& stop_gradient(c)"),
    ("flag", last.replace("True", "False") + "& stop_gradient(c)"),
    ("stop_gradient", last + "& c"),
  }
  assert len(mutants_of_file) == len(shown)
  assert [change.line for change in mutants_of_file] == sorted(change.line for change in mutants_of_file)
  assert {change.after for change in mutants_of_file if change.guard} == {
    "if self.k <= 0:",
    "if self.k < -1:",
    "if self.k < 1:",
  }


def test_every_mutant_differs_from_its_file_in_one_expression():
  source = textwrap.dedent(PLANTED).lstrip()
  plain = ast.unparse(ast.parse(source))
  for change in mutation_operators.changes(source):
    changed = ast.unparse(ast.parse(change.source))
    different = [(a, b) for a, b in zip(plain.splitlines(), changed.splitlines(), strict=True) if a != b]
    assert len(different) == 1
    assert mutation_operators.REACHED in different[0][1]


def test_a_limit_takes_mutants_evenly_and_the_same_each_time():
  mutants_of_file = mutation_operators.changes("x = [1, 2, 3, 4, 5, 6]")
  assert [change.after for change in mutation_operators.spread(mutants_of_file, 3)] == [
    f"x = [{row}]" for row in ("0, 2, 3, 4, 5, 6", "1, 2, 2, 4, 5, 6", "1, 2, 3, 4, 4, 6")
  ]
  assert (
    mutation_operators.spread(mutants_of_file, 0) == mutation_operators.spread(mutants_of_file, 99) == mutants_of_file
  )


def test_all_mutants_of_a_local_window_are_killed():
  (score,) = mutation.scores([row("local(window=3)")])
  assert score.total >= 4
  assert score.count(KILLED) == score.total, mutation.text(score)
  assert {outcome.reason for outcome in score.outcomes} <= {*battery.PROOFS, "raises TypeError"}


def test_all_mutants_of_the_equation_of_alibi_are_killed(monkeypatch):
  only(monkeypatch, lambda change: change.function == "_penalised")
  (score,) = mutation.scores([row("alibi")])
  assert [outcome.status for outcome in score.outcomes] == [KILLED] * 3, mutation.text(score)


@pytest.mark.parametrize("name", ["sigmoid", "hard_coded", "divided_space_time(tokens=3)"])
def test_all_mutants_of_checks_and_of_fixed_parameters_are_killed(name, monkeypatch):
  only(monkeypatch, lambda change: change.function in ("init", "__post_init__"))
  (score,) = mutation.scores([row(name)])
  assert score.count(KILLED) == len(score.outcomes) > 0, mutation.text(score)
  by_proofs = {"illegal settings are refused", "fixed parameters are the paper's"}
  assert {outcome.reason for outcome in score.outcomes} & by_proofs


def test_programs_that_are_one_at_the_examined_setting_alone_are_not_equivalent(monkeypatch):
  only(monkeypatch, lambda change: change.after.endswith("(2.0 / self.sigma ** 2)"))
  (score,) = mutation.scores([row("hard_coded")])
  assert [outcome.reason for outcome in score.outcomes] == ["equals its oracle with sigma=0.37"]


def test_two_workers_find_what_one_finds():
  rows = [row("sigmoid"), row("cosine")]
  alone, together = ({s.spec: s.outcomes for s in mutation.scores(rows, 1, workers)} for workers in (1, 2))
  assert alone == together
  assert [len(outcomes) for outcomes in alone.values()] == [1, 1]


def test_a_third_partys_mutants_are_killed_without_an_oracle_and_its_survivors_are_reported(third_party, monkeypatch):
  only(monkeypatch, lambda change: change.operator == "comparison" or change.after.endswith("axis=0, keepdims=True)"))
  modules = set(sys.modules)
  (score,) = mutation.scores([row("mutated_package.mine:Mine")])
  statuses = {outcome.after: outcome.status for outcome in score.outcomes}
  assert statuses.pop("mean = -self.k * jnp.mean(v, axis=0, keepdims=True)") == KILLED
  assert set(statuses.values()) == {SURVIVED}
  text = mutation.text(score)
  assert "mutated_package.mine:Mine: killed 1 of 2" in text
  assert "survived  line 12, comparison: a check of arguments: no limit in its case" in text
  assert "    - if self.k < -99:\n    + if self.k <= -99:" in text
  assert not [name for name in set(sys.modules) - modules if "__mutant" in name]


def test_only_what_is_proved_equivalent_is_left_out():
  variant, case = row("sigmoid")
  programs = hlo_equal.Programs(VariantUnderTest(variant, case, quick=True))
  assert programs.equal(VariantUnderTest(variant, case, quick=True))
  assert not programs.equal(VariantUnderTest(spec.parse("sigmoid(scale=0.3)"), case, quick=True))


def test_initial_values_of_trained_parameters_are_left_out(monkeypatch):
  only(monkeypatch, lambda change: change.function == "init" and change.operator == "sign")
  (score,) = mutation.scores([row("delta_rule(chunk=4)")])
  assert [outcome.status for outcome in score.outcomes] == [EQUIVALENT]
  assert score.total == 0
  assert mutation.share([score]) == 1.0


def test_an_endless_loop_is_ended():
  with pytest.raises(TimeoutError), mutants.limited(0.05):
    endless()


@pytest.mark.parametrize(
  ("text", "kind"), [("2*alibi+2*softmax", "a mixture of heads"), ("conv(3)>softmax", "a composed layer")]
)
def test_what_is_made_of_several_files_is_refused(text, kind):
  with pytest.raises(ValueError, match=f"{kind} has no file of its own"):
    list(mutation.scores([row(text)]))


def test_totals_leave_out_what_is_equivalent():
  outcomes = [Outcome(1, "sign", "-a", "a", status, "because") for status in (KILLED, SURVIVED, EQUIVALENT)]
  mutants_of_file = [Score("one", tuple(outcomes)), Score("two", tuple(outcomes[:1]))]
  assert mutation.share(mutants_of_file) == 2 / 3
  assert mutation.verdict(mutants_of_file) == "2 mutated: killed 2 of 3, 66.7% (1 equivalent left out)"
  first = json.loads(mutation.to_json(mutants_of_file))[0]
  assert (first["spec"], first["killed"], first["total"], first["share"]) == ("one", 1, 2, 0.5)
  assert first["mutants"][1] == {
    "line": 1,
    "operator": "sign",
    "before": "-a",
    "after": "a",
    "status": "survived",
    "reason": "because",
  }


@pytest.mark.parametrize(
  ("arguments", "code", "message"),
  [
    (["--attention=local(window=3)", "--mutate", "--limit=2", "--json=mutants.json"], 0, "1 mutated: killed 2 of 2"),
    (["--attention=mutated_package.mine:Mine", "--mutate", "--limit=1"], 1, "1 mutated: killed 0 of 1"),
    (["--attention=softmax", "--mutate", "--quick"], 2, "leave --markdown, --demands and --quick out"),
  ],
)
def test_the_exit_code_says_whether_the_share_is_reached(third_party, arguments, code, message):
  root = str(mutation_operators.__file__).rsplit("attention_lab", 1)[0]
  code_line = f"import sys; sys.path[:0] = [{root!r}, {str(third_party)!r}]; sys.argv[0] = 'certify'\n"
  code_line += "from absl import app\nimport runpy\nrunpy.run_module('experiments.certify', run_name='__main__')"
  done = subprocess.run(
    [sys.executable, "-c", code_line, *arguments], check=False, capture_output=True, text=True, cwd=third_party
  )
  assert done.returncode == code, done.stdout + done.stderr
  assert message in done.stdout + done.stderr
  assert (third_party / "mutants.json").exists() == ("--json=mutants.json" in arguments)
