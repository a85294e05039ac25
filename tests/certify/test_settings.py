"""Limits of hyper-parameters and values of fixed parameters: what the cases say, and that the proofs hear it."""

import ast
import dataclasses
import inspect
import textwrap
import types

import jax.numpy as jnp
import numpy as np
import pytest

from attention_lab.attention import spec
from attention_lab.attention.base import Attention, Claims, Dims
from attention_lab.attention.layer_parts import PARTS
from attention_lab.certify import battery, composed_case
from attention_lab.certify.finding import FAILED, NOT_CLAIMED, NOT_GIVEN, PROVED
from attention_lab.certify.oracle_shared import off_normal

LIMITS, FIXED = "illegal settings are refused", "fixed parameters are the paper's"
CASES = battery.cases()
DRAWS = 256
frozen = dataclasses.dataclass(frozen=True)


@frozen
class Mean(Attention):
  """A mean of the values, for checks and parameters to be planted in."""

  k: int = 2

  def claims(self):
    return Claims(decode=False, exactness="other")

  def attend(self, params, q, k, v, call):
    mean = jnp.mean(v, axis=1, keepdims=True) / (self.k - 1)
    return jnp.broadcast_to(jnp.repeat(mean, q.shape[2] // v.shape[2], axis=2), (*q.shape[:3], v.shape[3]))


def refusing(least, message):
  """`Mean` that takes k from `least` on, and says `message` otherwise."""

  @frozen
  class Checked(Mean):
    def __post_init__(self):
      if self.k < least:
        raise ValueError(message)

  return Checked(k=5)


def starting(init):
  """`Mean` with parameters."""
  return type("Started", (Mean,), {"init": lambda self, key, dims: init(key, dims)})()


def finding_of(claim, variant, quick=True, **attributes):
  case = types.ModuleType("case")
  vars(case).update(attributes)
  return battery.prove(claim, variant, case, quick=quick)


def checked_fields(kind):
  """The fields that the checks of a class read."""
  checks = [vars(base)["__post_init__"] for base in kind.__mro__ if "__post_init__" in vars(base)]
  text = "\n".join(textwrap.dedent(inspect.getsource(check)) for check in checks)
  read = {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
  return read & {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize("name", CASES)
def test_every_checked_field_has_a_limit_that_is_a_spec_of_its_variant(name):
  limits = getattr(CASES[name], "LIMITS", ())
  kind = type(spec.parse(CASES[name].SPECS[0]))
  illegal_fields = [keyword.arg for _, beyond in limits for keyword in ast.parse(beyond, mode="eval").body.keywords]
  assert checked_fields(kind) <= set(illegal_fields)
  for legal, beyond in limits:
    assert type(spec.parse(legal)) is kind
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
      spec.parse(beyond)


def test_every_field_of_every_part_has_a_limit():
  illegal_fields = {
    f"{call.func.id}.{keyword.arg}"
    for _, beyond in composed_case.LIMITS
    for call in ast.walk(ast.parse(beyond))
    if isinstance(call, ast.Call)
    for keyword in call.keywords
  }
  assert illegal_fields == {
    f"{name}.{field.name}" for name, kind in PARTS.items() for field in dataclasses.fields(kind)
  }
  assert battery.prove(LIMITS, spec.parse("softmax>norm"), quick=True).status == PROVED


@pytest.mark.parametrize(
  ("variant", "says"),
  [
    (refusing(2, "k must be at least 2"), ""),
    (refusing(1, "k must be at least 2"), "mean(k=1) is accepted"),
    (refusing(3, "k must be at least 2"), "mean(k=2) is legal, and is refused: k must"),
    (refusing(2, "it must be at least 2, okay"), "must name k in one line"),
    (refusing(2, "k must be\nat least 2"), "must name k in one line"),
  ],
)
def test_a_check_that_is_off_by_one_or_does_not_say_why_is_found(variant, says):
  finding = finding_of(LIMITS, variant, LIMITS=(("mean(k=2)", "mean(k=1)"),))
  assert finding.status == (FAILED if says else PROVED), finding.detail
  assert says in finding.detail


def test_the_full_battery_calls_at_the_limit():
  variant, limits = refusing(1, "k must be at least 1"), (("mean(k=1)", "mean(k=0)"),)
  assert finding_of(LIMITS, variant, LIMITS=limits).status == PROVED
  finding = finding_of(LIMITS, variant, quick=False, LIMITS=limits)
  assert (finding.status, finding.detail) == (FAILED, "mean(k=1) is legal, and its output is not finite")


def test_limits_are_wanted_where_there_are_fields():
  assert finding_of(LIMITS, spec.parse("fourier")).status == NOT_CLAIMED
  assert finding_of(LIMITS, Mean()).status == NOT_GIVEN
  assert finding_of(LIMITS, Mean(), LIMITS=()).status == NOT_CLAIMED
  assert finding_of(LIMITS, refusing(1, "k"), LIMITS=()).status == NOT_GIVEN


@pytest.mark.parametrize(
  ("init", "says"),
  [
    (lambda key, dims: {"fixed": {"per_head": {"a": 0.1 * jnp.arange(dims.heads)}, "b": jnp.log(dims.max_len)}}, ""),
    (lambda key, dims: {"fixed": {"per_head": {"a": 0.1 * jnp.arange(dims.heads)}, "b": 0.0}}, "fixed b is 0, not 1.6"),
    (lambda key, dims: {"fixed": {"per_head": {"a": jnp.arange(dims.heads)}, "b": jnp.log(dims.max_len)}}, "a[1] is 1"),
    (lambda key, dims: {"fixed": {"per_head": {"a": jnp.zeros(1)}, "b": jnp.log(dims.max_len)}}, "the shape (1,)"),
    (lambda key, dims: {"fixed": {"b": jnp.log(dims.max_len)}}, "fixed holds b, not b, per_head"),
    (lambda key, dims: {"fixed": {"per_head": 1.0, "b": jnp.log(dims.max_len)}}, "fixed holds an array, not a"),
    (lambda key, dims: {"a": jnp.zeros(dims.heads)}, "fixed holds nothing, not b, per_head"),
  ],
)
def test_a_fixed_parameter_of_another_value_shape_or_name_is_found(init, says):
  def fixed(variant, dims):
    return {"per_head": {"a": 0.1 * np.arange(dims.heads)}, "b": np.log(dims.max_len)}

  finding = finding_of(FIXED, starting(init), fixed=fixed)
  assert finding.status == (FAILED if says else PROVED), finding.detail
  assert says in finding.detail


def test_values_are_wanted_where_something_is_fixed():
  assert finding_of(FIXED, Mean()).status == NOT_CLAIMED
  assert finding_of(FIXED, spec.parse("alibi")).status == NOT_GIVEN


def test_a_law_sees_many_draws_and_its_verdict_counts():
  init = starting(lambda key, dims: {"fixed": {"a": jnp.ones(dims.heads)}})
  shapes = []

  def law(variant, leaves, dims):
    shapes.append((leaves["a"].shape, dims.heads))
    return "ones" if dims.heads == 4 else ""

  assert finding_of(FIXED, init, fixed_law=law).status == PROVED
  assert finding_of(FIXED, init, quick=False, fixed_law=law).detail == "ones"
  assert shapes[0] == ((DRAWS, 1), 1)


def test_off_normal_tells_what_is_not_standard_normal():
  rng = np.random.default_rng(0)
  normal = rng.normal(size=(DRAWS, 3, 4))
  assert off_normal("it", normal) == ""
  assert "mean power 1" in off_normal("it", normal + 0.3)
  assert "mean power 4" in off_normal("it", 2.0 * normal)
  assert "mean power 4" in off_normal("it", rng.uniform(-(3**0.5), 3**0.5, normal.shape))
  assert "correlation of 1" in off_normal("it", np.repeat(normal[:, :1], 3, axis=1))
  assert "the variance of an entry" in off_normal("it", normal * (np.arange(12) > 0).reshape(3, 4))


def test_the_laws_of_random_parameters_tell_wrong_draws():
  rng, dims = np.random.default_rng(0), Dims(6, 2, 2, 3, 2, 9)
  performer, lsh, bigbird = (spec.parse(CASES[name].SPECS[0]) for name in ("performer", "lsh", "bigbird"))

  def law(name, variant, **leaves):
    return CASES[name].fixed_law(variant, leaves, dims)

  independent = rng.normal(size=(DRAWS, performer.features, 3))
  assert "not orthogonal" in law("performer", performer, directions=independent)
  assert "the shape (8, 2)" in law("performer", performer, directions=independent[..., :2])
  rotations = rng.normal(size=(DRAWS, lsh.hashes, 3, lsh.buckets // 2))
  assert law("lsh", lsh, rotations=rotations) == ""
  assert "the shape (2, 3, 1)" in law("lsh", lsh, rotations=rotations[..., :1])
  assert "correlation" in law("lsh", lsh, rotations=np.repeat(rotations[:, :1], 2, axis=1))
  blocks = rng.integers(0, 5, (DRAWS, 5, bigbird.random))
  assert law("bigbird", bigbird, blocks=blocks) == ""
  assert "holds 0 … 5" in law("bigbird", bigbird, blocks=blocks + (blocks == 4))
  assert "more or less often" in law("bigbird", bigbird, blocks=np.minimum(blocks, 3))
  assert "not integers" in law("bigbird", bigbird, blocks=blocks * 1.0)
