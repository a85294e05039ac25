"""Specs parse to variants and back, and say in one line what is wrong."""

import sys
import textwrap

import pytest

from attention_lab.attention import spec
from attention_lab.attention.head_mixture import HeadMixture


@pytest.mark.parametrize("name", spec.names())
def test_every_file_in_variants_is_a_name_that_round_trips(name):
  assert spec.to_string(spec.parse(name)) == name


@pytest.mark.parametrize(
  "text", ["local(window=3)", "softmax(scale=0.5, soft_cap=2.0)", "2*local(window=3)+6*linear", "softmax+alibi"]
)
def test_a_spec_round_trips(text):
  assert spec.parse(spec.to_string(spec.parse(text))) == spec.parse(text)


def test_layers_repeat_cyclically():
  assert [spec.to_string(v) for v in spec.layers("2*linear|softmax", 5)] == ["linear", "linear", "softmax"] + [
    "linear"
  ] * 2


def test_star_binds_before_plus_before_bar_and_parentheses_group():
  first, second, third = spec.layers("2*(softmax+linear)|alibi", 3)
  assert isinstance(first, HeadMixture)
  assert first == second
  assert spec.to_string(third) == "alibi"


@pytest.mark.parametrize(
  ("text", "canonical"),
  [
    ("local(3)", "local(window=3)"),
    ("local(window=128)", "local"),
    ("linear|linear|softmax", "2*linear|softmax"),
    ("2*softmax", "softmax"),
    ("(softmax+linear)|(1*softmax+1*linear)|alibi", "2*(softmax+linear)|alibi"),
  ],
)
def test_a_row_has_one_canonical_form(text, canonical):
  assert spec.canonical(text) == canonical
  assert spec.layers(canonical, 6) == spec.layers(text, 6)


def test_every_old_spelling_is_an_alias_of_a_file_in_variants_and_of_none_that_exists():
  assert set(spec.ALIASES.values()) <= set(spec.names())
  assert not set(spec.ALIASES) & set(spec.names())


@pytest.mark.parametrize("old", spec.ALIASES)
def test_an_old_spelling_is_the_variant_under_its_present_name(old):
  assert spec.canonical(old) == spec.to_string(spec.parse(old)) == spec.ALIASES[old]
  assert spec.layers(f"2*{old}|softmax", 3) == spec.layers(f"2*{spec.ALIASES[old]}|softmax", 3)
  assert spec.rows(f"softmax;{old}") == ("softmax", spec.ALIASES[old])


@pytest.mark.parametrize(
  ("old", "present"),
  [
    ("forgetting|shared+fixed(stride=3, expressivity=1)", "fox|shared_qk+sparse_fixed(stride=3, expressivity=1)"),
    ("3*(shared(values=True)+ 2*strided)", "3*(shared_qk(values=True)+ 2*sparse_strided)"),
    ("pooled; space_time(tokens=3)", "memory_compressed; divided_space_time(tokens=3)"),
    ("softmax;stick_breaking(own=True)", "softmax;stick_breaking(attend_current=True)"),
    ("transient_global@architecture=lstm", "long_t5_tglobal@architecture=lstm"),
    ("my_pkg.shared:Mine(shared=1, kind='fixed')|fixed", "my_pkg.shared:Mine(shared=1, kind='fixed')|sparse_fixed"),
    ("shared:Mine|fixed.file:Strided", "shared:Mine|fixed.file:Strided"),
    ("softmax|sparse_fixed+shared_qk|fixed_like", "softmax|sparse_fixed+shared_qk|fixed_like"),
  ],
)
def test_old_spellings_are_replaced_and_neither_arguments_nor_users_packages(old, present):
  assert spec.respelled(old) == spec.respelled(present) == present


def test_rows_are_split_at_semicolons():
  assert spec.rows("softmax; local(window=3);") == ("softmax", "local(window=3)")


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("sofmax", "did you mean 'softmax'"),
    ("local(windw=3)", "did you mean 'window'"),
    ("local(window=0)", "at least 1"),
    ("local(window=1.5)", "must be int"),
    ("local(window=True)", "must be int"),
    ("local(", "malformed"),
    ("0*softmax", "count of at least 1"),
    ("softmax|", "malformed"),
    ("local(window=open)", "literals"),
    ("softmax|linear", "2 layers where one"),
    ("softmax+fourier", "with | and not +"),
    ("no_such_package.file:Mine", "cannot load"),
    ("dataclasses:field", "is not a variant"),
    ("local(1, 2.0, 'xla', 4)", "takes 3 hyper-parameters"),
  ],
)
def test_a_wrong_spec_is_refused_in_one_line(text, message):
  with pytest.raises(ValueError, match=message) as caught:
    spec.parse(text)
  assert "\n" not in str(caught.value)


def test_a_class_in_a_users_own_package_is_a_name(tmp_path, monkeypatch):
  (tmp_path / "my_pkg").mkdir()
  (tmp_path / "my_pkg" / "__init__.py").write_text("")
  (tmp_path / "my_pkg" / "mine.py").write_text(
    textwrap.dedent("""
      import dataclasses
      from attention_lab.attention.variants.softmax import Softmax
      @dataclasses.dataclass(frozen=True)
      class Mine(Softmax):
        k: int = 1
    """)
  )
  monkeypatch.syspath_prepend(tmp_path)
  mine = spec.parse("my_pkg.mine:Mine(k=3)")
  assert mine.k == 3
  assert spec.to_string(mine) == "my_pkg.mine:Mine(k=3)"
  assert spec.packages("softmax|my_pkg.mine:Mine(k=3)") == {"my_pkg"}
  del sys.modules["my_pkg.mine"], sys.modules["my_pkg"]
