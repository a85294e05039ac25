import jax
import jax.numpy as jnp
import pytest

from attention_lab.attention import spec
from attention_lab.benchmark import explanation, program, variant_program
from attention_lab.benchmark.program import Case

CASE = Case("forward", 600, 1, 2, 2, 8, "float32", True)


def explained(function, *args, case=CASE):
  return explanation.summary(program.build(function, *args)[1], case)


def test_a_matrix_of_logits_is_seen_and_blocks_are_not():
  long = CASE._replace(length=1200)
  q = jnp.ones((1200, 8))
  assert explained(lambda q: jax.nn.softmax(q @ q.T) @ q, q, case=long)["dense"]
  assert explanation.summary(variant_program.compile_variant(spec.parse("softmax"), long), long)["dense"] is False


def test_loops_and_products_are_counted():
  made = explained(lambda x: jax.lax.fori_loop(0, 7, lambda _, y: y @ x, x), jnp.ones((64, 64)))
  assert made["operations"]["while"] == 1
  assert made["temporaries"] is not None


def test_where_a_width_is_as_long_as_the_sequence_nothing_is_claimed():
  narrow = CASE._replace(length=8)
  assert explained(lambda q: q @ q.T, jnp.ones((8, 8)), case=narrow)["dense"] is None


def test_a_buffer_inside_a_fusion_is_none():
  text = "\n".join(
    [
      "%fused_computation (p: f32[600,8]) -> f32[600] {",
      "  %dot.1 = f32[600,600]{1,0} dot(%p, %p)",
      "}",
      "ENTRY %main (p: f32[600,8]) -> f32[600] {",
      "  %fusion = f32[600]{0} fusion(%p), kind=kLoop, calls=%fused_computation",
      "}",
    ]
  )
  assert explanation.dense(explanation.outside_fusions(text), CASE) is False
  assert explanation.dense(text.splitlines(), CASE)


@pytest.mark.parametrize("name", ["softmax", "linear"])
def test_every_implementation_that_did_not_run_has_a_reason(name):
  outcomes = explanation.implementations(spec.parse(name), CASE)
  assert sum(option.startswith("ran") for option in outcomes.values()) == 1
  assert all(option.startswith(("ran", "not used: ")) for option in outcomes.values())


def test_a_program_without_text_says_so():
  made = explanation.summary(program.Program(lambda _: program.Sample(lambda: None)), CASE)
  assert made is None
  assert "cannot be read here" in explanation.sentences({"program": None, "peer": True})[0]


def test_a_row_measured_without_explain_says_that_nothing_else_was_tried():
  assert "without --explain" in explanation.sentences({"program": None, "peer": False})[0]
